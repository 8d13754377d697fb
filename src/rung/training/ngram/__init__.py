"""Counting n-grams and estimating a language model from the counts."""
