"""Models to talk with: tuning on conversations, and the chat itself. Import from the modules."""
