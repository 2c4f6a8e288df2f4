"""Schedule and statistics to predictions and per-step angles: one optimizer per file."""
