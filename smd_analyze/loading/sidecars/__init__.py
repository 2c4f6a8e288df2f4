"""Files that lie beside checkpoints: what a trainer was told, and what it logged."""
