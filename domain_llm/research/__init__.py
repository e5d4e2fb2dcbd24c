"""What else a small model can tell: a related work a room."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'upscale': ['next_log_probs', 'UpScaled', 'interpolate', 'load_upscaled'],
})
