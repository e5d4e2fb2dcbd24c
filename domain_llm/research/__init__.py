"""What else a small model can tell: a related work a room."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'order': ['ORDERS', 'places', 'reorder', 'restore', 'order_losses', 'order_margins',
        'order_gap', 'right_choices', 'sequential_anova', 'attention_weights',
        'attention_entropy', 'rank_by_distance', 'aligned_states', 'rsa'],
})
