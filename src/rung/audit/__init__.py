"""Whom a model may harm: what it has learned about groups of people, measured."""
