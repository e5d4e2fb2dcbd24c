"""GPT-2, from the board to the weights that others share."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'fast': ['MODERN', 'Softmax', 'chunked_losses', 'chunked_cross_entropy', 'is_bare', 'FastMLP',
        'Cache', 'Reading', 'FastAttention', 'FastBlock', 'GPT2', 'left_pad', 'try_compile',
        'eager'],
    'gpt2': ['PRESETS', 'GPT2Config', 'Attention', 'MLP', 'Block', 'Sampler', 'PlainGPT2',
        'num_params', 'flops_per_token'],
    'models': ['slow_bfloat16', 'load_model'],
    'real': ['PARCELS', 'take_out', 'check_sha256', 'halves', 'unpack_gguf', 'Parcel',
        'fetched_folder', 'has_model', 'fetch_model'],
    'weights': ['TOY', 'check_finite', 'weights_sha256', 'check_layout', 'their_layers',
        'save_model', 'gpt2_config', 'checkpoint_folder', 'TheirsAlone', 'load_gpt2',
        'stored_model', 'hidden_states'],
})
