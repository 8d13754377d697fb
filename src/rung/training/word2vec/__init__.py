"""Vectors of words by word2vec and fastText: compiled kernels and the trainer around them."""
