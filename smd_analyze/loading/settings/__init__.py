"""Hyperparameters: in force, configured or inferred, and which parameters a group holds."""
