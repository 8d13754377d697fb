"""The ladder of language models: raw text in, every kind of language model trained on it and measured in one unit."""
