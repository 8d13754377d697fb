"""Evaluation: numbers with intervals. Import from `bits_per_byte`, `compressors`, `intervals` and `scoring`."""
