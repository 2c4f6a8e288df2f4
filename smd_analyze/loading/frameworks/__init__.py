"""Tree to parameters, step and hyperparameters; one file per trainer."""
