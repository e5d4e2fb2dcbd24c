"""The ground floor: how the course checks itself, writes files, shows things and shares out work."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'course': ['ABOUT_DATA', 'KINDS', 'Claim', 'claims', 'claim', 'refused', 'Prediction',
        'predictions', 'predict', 'reveal', 'answers_file', 'Exercise', 'check_exercise',
        'Diagnosis', 'budget', 'data_dir', 'has_data', 'device_kind', 'run_cards', 'duration',
        'begin', 'attempts', 'tally'],
    'files': ['sync', 'write_whole', 'read_json', 'files_written', 'note_written',
        'is_passer_by', 'foreign_files', 'remove_written', 'only_writer', 'clear_leftovers',
        'is_mounted', 'whole_folder', 'file_sha256', 'files_below', 'cache_folder', 'download',
        'disk_is_full', 'peak_memory', 'total_memory', 'package_versions'],
    'processes': ['in_processes'],
    'results': ['differing', 'stored_results', 'recomputes', 'keep_results'],
    'show': ['BLUE', 'VERMILION', 'GREEN', 'PURPLE', 'ORANGE', 'SKY', 'BLACK', 'YELLOW',
        'COLOURS', 'TINTS', 'SHADES', 'GREYS', 'COLOUR_MAP', 'MARKERS', 'LINES', 'as_seen',
        'look', 'canvas', 'figure_png', 'visible', 'harmless', 'as_label', 'as_text', 'in_words',
        'fill_template', 'is_figure', 'page', 'fragment', 'two_digits', 'with_values',
        'pieces_text', 'Pieces', 'piece_tables', 'plot_predictions', 'progress'],
})
