"""What people know, and whether a model matches them."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'people': ['load_participants', 'human_accuracy', 'accuracy_by', 'case_ids', 'top_experts',
        'crossed_error', 'calibration', 'rank_bins', 'calibration_slope', 'Logistic', 'logistic',
        'logistic_draws', 'expertise_spread', 'noise_ceiling'],
    'report': ['write_report', 'plot_accuracy', 'plot_groups', 'plot_calibration',
        'plot_expertise', 'plot_correlation', 'plot_beside', 'evaluation_sections'],
    'verdict': ['answers_to', 'answers_by_case', 'Gap', 'against_experts', 'state_verdict',
        'published_scores', 'compare', 'summary_table', 'what_was_found', 'who_is_right',
        'difficulty', 'error_correlation', 'expert_correlation', 'finetuning_boost',
        'zlib_table'],
})
