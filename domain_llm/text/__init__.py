"""Papers become clean documents, without copies and leaks."""
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    'card': ['licences', 'keep_licences', 'CorpusCard', 'corpus_card', 'save_dropped'],
    'clean': ['LINE_END', 'NOTICE', 'mark_literal', 'resolve_marks', 'clean_text'],
    'documents': ['COLUMNS', 'counted', 'ReadReport', 'read_documents', 'column_values'],
    'fetching': ['fetch_pubmed', 'fetch_pmc'],
    'jats': ['LEFT_OUT', 'parse_xml', 'iter_articles', 'find_year', 'paper_numbers', 'read_jats',
        'article_rows', 'medline_rows', 'summary_rows'],
    'overlap': ['deduplicate', 'word_ngrams', 'run_length', 'decontaminate', 'split_documents',
        'across_split'],
    'synthetic': ['MANIPULATIONS', 'REGIONS', 'BEHAVIOURS', 'DIRECTIONS', 'FINDINGS', 'OPENINGS',
        'CLOSINGS', 'ROW_WORDS', 'POPULARITY', 'Case', 'wordings', 'read_findings',
        'SyntheticScience', 'row_text', 'text_row', 'stored_run'],
})
