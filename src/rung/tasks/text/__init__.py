"""A language model carried on with raw text."""
