"""How open weights are tuned: all of them, a new head alone, or low-rank additions; whatever the task."""
