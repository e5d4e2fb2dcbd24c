"""What else a small model can tell: a related work a room."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'reach': ['directions', 'along_rays', 'extrapolation_error', 'line_r2', 'by_place',
        'answers_about'],
})
