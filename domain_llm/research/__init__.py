"""What else a small model can tell: a related work a room."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'selfpaced': ['confidence', 'word_losses', 'dropout_losses', 'batch_weights', 'self_paced',
        'easiest'],
})
