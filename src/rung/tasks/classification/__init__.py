"""Text classification: from a labelled table to fitted rungs and predictions."""
