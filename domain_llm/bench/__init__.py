"""How surprised a model is by results, and how sure one can be."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'branches': ['pair_losses', 'cannot_branch'],
    'cases': ['FILES', 'CASE_SETS', 'read_marked', 'make_cases', 'validate_cases', 'named_file',
        'load_cases', 'subset', 'split_sentences', 'align', 'sentence_pairs',
        'isolated_sentences', 'swapped_context'],
    'controls': ['swap_labels', 'guessers', 'guessed', 'run_controls', 'check_cases',
        'write_harness_task'],
    'losses': ['PROMPT', 'context_length', 'model_device', 'token_losses', 'perplexity',
        'backend_tokenizer', 'encode_version', 'show_versions'],
    'scores': ['Scores', 'score_cases', 'score_texts', 'zlib_length', 'paper_labels'],
    'stats': ['critical_z', 'wilson_interval', 'Line', 'format_p', 'flip_test',
        'bootstrap_interval', 'Comparison', 'paired_comparison', 'mcnemar_power', 'cases_needed',
        'gain_and_loss', 'cluster_covariance', 'clustered_error', 'normal_interval',
        'two_sided_p', 'two_proportions'],
})
