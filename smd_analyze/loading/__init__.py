"""Path to Run: find checkpoints, order them, read their hyperparameters, never run what they contain."""
