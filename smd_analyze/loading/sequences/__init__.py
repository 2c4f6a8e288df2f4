"""Which checkpoints are one run, in which order, at which step."""
