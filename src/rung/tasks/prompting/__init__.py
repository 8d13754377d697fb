"""Prompted language models as a rung: an OpenAI-compatible endpoint, or a local generative folder."""
