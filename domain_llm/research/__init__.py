"""What else a small model can tell: a related work a room."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'inside': ['Components', 'principal_components', 'Match', 'best_match', 'plot_components',
        'keep_components', 'Probe', 'probe', 'pair_up', 'patch', 'plot_order', 'pair_states',
        'PairProbe', 'probe_pairs'],
})
