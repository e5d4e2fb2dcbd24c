"""What else a small model can tell: a related work a room."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'brain': ['COMPONENTS', 'cut_words', 'Brain', 'synthetic_brain', 'word_states', 'compress',
        'simple_features', 'group_folds', 'Encoding', 'encode', 'unseen_words', 'r_interval',
        'difference', 'shuffle_groups', 'haemodynamic', 'to_scans', 'load_brain'],
    'diagnosis': ['LEVELS', 'sentences_read', 'questions', 'author_reader', 'law_reader',
        'rote_reader', 'margins', 'level_table', 'diagnose', 'model_reader', 'laws_kept', 'radar',
        'rasch', 'ability', 'change_type', 'group_profile'],
    'foresight': ['PENALTIES', 'log_curve', 'power_law_end', 'ridge_path', 'ridge',
        'evaluation_network', 'left_out', 'half_widths', 'stop_early'],
    'inside': ['Components', 'principal_components', 'Match', 'best_match', 'plot_components',
        'keep_components', 'Probe', 'probe', 'pair_up', 'patch', 'plot_order', 'pair_states',
        'PairProbe', 'probe_pairs'],
    'memory': ['plant', 'recited', 'memory_signs'],
    'order': ['ORDERS', 'places', 'reorder', 'restore', 'masked_loss', 'order_losses',
        'order_margins', 'order_gap', 'right_choices', 'sequential_anova', 'bell_slope', 'may_turn',
        'attention_weights', 'attention_entropy', 'rank_by_distance', 'rsa', 'aligned_states'],
    'reach': ['directions', 'along_rays', 'extrapolation_error', 'line_r2', 'by_place',
        'answers_about'],
    'scarce': ['RATES', 'draw_shots', 'last_word_loss', 'few_shot', 'fit_logistic'],
    'selfpaced': ['confidence', 'word_losses', 'dropout_losses', 'batch_weights', 'self_paced',
        'easiest', 'easy_first'],
    'upscale': ['next_log_probs', 'UpScaled', 'interpolate', 'load_upscaled'],
})
