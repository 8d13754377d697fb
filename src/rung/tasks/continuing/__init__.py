"""Carrying on from a trained language model with new text: replay, a pull towards the old weights, gains and losses."""
