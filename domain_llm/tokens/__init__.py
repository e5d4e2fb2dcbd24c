"""Text becomes numbers, and counting shows how far one gets without a network."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'dataset': ['write_tokens', 'TokenFile', 'Batches', 'Prefetch', 'prefetch', 'paper_rows',
        'PaperBatches'],
    'ngram': ['NGram'],
    'tokenizer': ['EOS', 'GPT2_PATTERN', 'train_tokenizer', 'plain_copy', 'tokenizer_sha256',
        'save_tokenizer', 'load_tokenizer', 'visible_tokens', 'show_pieces', 'fertility',
        'whole_terms', 'bits_per_byte', 'shrink_tokenizer', 'vocab_overlap', 'term_share'],
})
