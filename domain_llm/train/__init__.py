"""A model is trained, and nothing is lost."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'distributed': ['Team', 'join', 'Trainer', 'gather', 'scatter', 'whole_model'],
    'finetuning': ['WHOLE_RECIPE', 'LORA_RECIPE', 'ModelFacts', 'Trainable', 'lora_layers',
        'Adapted', 'add_lora', 'merged'],
    'loop': ['rows_that_fit'],
    'muon': ['orthogonalize', 'full_tensor', 'shard_like', 'Muon', 'make_optimizers'],
    'pretraining': ['pretrain', 'steps_in'],
    'recipe': ['FREE', 'FAST_RECIPE', 'PAPER_RECIPE', 'TrainConfig', 'schedule', 'paper_length',
        'Device', 'device_info'],
    'rows': ['ROW_MODEL', 'row_margins', 'train_on_rows'],
    'runs': ['LOGGERS', 'save_checkpoint', 'load_checkpoint', 'open_run', 'validation_loss',
        'save_trained', 'best_so_far', 'keep_best', 'read_log', 'peak_flops', 'throughput',
        'open_log', 'Stop', 'plot_run', 'forecast_end', 'forecast'],
})
