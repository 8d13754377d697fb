"""Training: the plan, the one loop, schedules, guards, checkpoints, several processes, meter."""
