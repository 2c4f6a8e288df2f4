"""Run and groups to norms and angles: one pass over the bytes."""
