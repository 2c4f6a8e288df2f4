"""Where tensors lie in files, what stands for things that are never made, and trees of both."""
