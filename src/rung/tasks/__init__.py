"""A task turns columns into examples, an objective, metrics and predictions: what `train` and `tune` are told to do."""
