"""Evaluation: numbers with intervals, paired tests, learning curves. Import from the modules; each names its own."""
