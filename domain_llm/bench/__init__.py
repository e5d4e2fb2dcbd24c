"""How surprised a model is by results, and how sure one can be."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'branches': ['pair_losses', 'cannot_branch'],
    'cases': ['FILES', 'CASE_SETS', 'read_marked', 'make_cases', 'validate_cases', 'named_file',
        'load_cases', 'subset', 'split_sentences', 'align', 'sentence_pairs',
        'isolated_sentences', 'swapped_context'],
    'controls': ['swap_labels', 'guessers', 'guessed', 'run_controls', 'check_cases',
        'write_harness_task'],
    'equivalence': ['Gap', 'least_error', 'match_sentence', 'Spread', 'planned_error',
        'match_power', 'match_cases', 'planning_table'],
    'looks': ['holm', 'benjamini_hochberg', 'correct_looks', 'declare_plan', 'read_plan',
        'declared_beforehand'],
    'losses': ['PROMPT', 'model_config', 'context_length', 'model_device', 'fewer_when_full',
        'token_losses', 'perplexity', 'backend_tokenizer', 'first_tokens', 'encode_versions',
        'encode_version', 'show_versions'],
    'responses': ['RULES', 'exclude', 'load_responses', 'case_ids'],
    'scores': ['abstract_of', 'Scores', 'score_cases', 'score_texts', 'zlib_length',
        'paper_labels'],
    'seeds': ['answers_matrix', 'seed_variance', 'pooled_df', 'recipe_gap', 'compare_recipes'],
    'stats': ['critical_z', 'wilson_interval', 'chance_test', 'accuracy_interval', 'Line',
        'flip_test', 'format_p', 'middle_of', 'bootstrap_interval', 'flip_interval',
        'Comparison', 'paired_comparison', 'mcnemar_power', 'cases_needed', 'gain_and_loss',
        'cluster_covariance', 'clustered_error', 'cluster_df', 'normal_interval', 'two_sided_p',
        'two_proportions'],
})
