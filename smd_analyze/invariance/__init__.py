"""Run (and model) to groups: which weights are scale-invariant, and at which granularity."""
