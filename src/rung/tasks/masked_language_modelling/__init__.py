"""BERT: a network that learns to guess hidden words of a text, from both sides."""

from rung.tasks.masked_language_modelling.model import MaskedModel, evaluate, load
from rung.tasks.masked_language_modelling.training import plan, resume, train

__all__ = ["MaskedModel", "evaluate", "load", "plan", "resume", "train"]
