"""The front door: steps that are done once, the game, the command line."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'cli': ['app', 'DEMO', 'ABOUT', 'FINETUNED', 'SCORED', 'Force', 'Out', 'Corpus', 'Near',
        'Workers', 'Encoding', 'Largest', 'Follow', 'Cases', 'Prompt', 'Experts', 'BOTH', 'Size',
        'Minutes', 'Seed', 'Recipe', 'Rate', 'Layout', 'Compile', 'Device', 'Precision', 'Start',
        'Lora', 'Lora_to', 'Paths', 'Keep_out', 'Vocab_size', 'Models', 'Upscale', 'Beta',
        'Asked', 'command', 'demo', 'run', 'plan', 'exam', 'make_game', 'ask', 'corpus',
        'tokenizer', 'tokens', 'pretrain', 'evaluate', 'score', 'report', 'fetch', 'fetch_model',
        'main', 'health', 'doctor'],
    'game': ['PRINTED', 'HOW', 'Round', 'rounds', 'case_key', 'Answers', 'Match', 'reply',
        'still_open', 'play', 'mark', 'typed', 'fresh_rounds', 'brainbench_match',
        'invented_readers', 'clue_cards', 'xray_of', 'synthetic_match', 'answered', 'standing',
        'show_result', 'game_widget', 'game_page', 'match_for', 'write_game'],
    'steps': ['SIZES', 'PAPER_ROWS', 'EXPERTS', 'PARTIES', 'fingerprint', 'noted_steps',
        'one_at_a_time', 'once', 'go_further', 'step_folder', 'save_corpus', 'read_papers',
        'start_tokenizer', 'make_tokenizer', 'make_tokens', 'tokens_per_step', 'start_model',
        'started_from', 'new_model', 'sample_text', 'train', 'trigram_scores', 'evaluate_cases',
        'model_print', 'score_model', 'model_scores', 'scored_sets', 'plan_for', 'only_set',
        'keep_experts', 'case_results', 'scored_cases', 'make_report', 'show_results'],
})
