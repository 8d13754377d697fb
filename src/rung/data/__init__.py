"""From raw text to batches: read, clean, deduplicate, split, tokenise, store, order, pack.

The first half ends in a `Corpus` (`rung.data.corpus.prepare_corpus`), the second begins with it.
"""
