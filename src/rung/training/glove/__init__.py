"""GloVe: counted co-occurrences, and vectors whose products fit their logarithms."""
