"""From one text to another, learned from pairs: translation, summaries, corrections."""
