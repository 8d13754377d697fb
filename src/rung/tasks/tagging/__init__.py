"""Tagging: a label for each word, such as the names of people and places in a text."""
