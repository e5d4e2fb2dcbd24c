"""What people know, and whether a model matches them."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'asked': ['QUESTION', 'write_questions', 'read_answer', 'load_answers', 'order_bias',
        'asked_scores', 'asked_sentence'],
    'exam_page': ['CONSENT', 'POSITIONS', 'SLIDERS', 'COLUMNS', 'deal_cases', 'in_pieces',
        'random_names', 'page_case', 'attention_checks', 'question_page', 'write_exam'],
    'items': ['answers_table', 'item_table', 'reliability'],
    'people': ['people_and_cases', 'crossed_error', 'answers_line', 'human_accuracy',
        'accuracy_by', 'compare_answers', 'top_experts', 'calibration', 'rank_bins',
        'calibration_slope', 'Logistic', 'logistic', 'logistic_draws', 'expertise_spread',
        'noise_ceiling', 'ceiling_interval'],
    'real_scores': ['stored_scores'],
    'report': ['write_report', 'plot_accuracy', 'plot_gaps', 'plot_groups', 'plot_calibration',
        'plot_expertise', 'plot_correlation', 'plot_beside', 'evaluation_sections'],
    'together': ['auroc', 'auroc_interval', 'proper_scores', 'pair_answers', 'pair_gain',
        'pair_sentence'],
    'verdict': ['answers_to', 'answers_by_case', 'against_experts', 'state_verdict',
        'published_scores', 'pilot_spread', 'compare', 'summary_table', 'gaps_table',
        'gaps_from_experts', 'what_was_found', 'who_is_right', 'difficulty', 'error_correlation',
        'expert_correlation', 'finetuning_boost', 'zlib_table', 'Gap'],
})
