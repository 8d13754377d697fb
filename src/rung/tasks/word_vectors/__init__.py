"""Vectors of words: trained on text by word2vec, fastText's way or GloVe, measured, brought in and out."""

from rung.tasks.word_vectors.training import resume, train
from rung.tasks.word_vectors.using import evaluate_vectors, export_vectors, import_vectors, load_vectors

__all__ = ["evaluate_vectors", "export_vectors", "import_vectors", "load_vectors", "resume", "train"]
