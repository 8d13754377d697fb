"""Texts as vectors: how alike they are, and encoders tuned so that the vectors say what the user means by alike."""
