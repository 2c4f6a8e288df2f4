"""Tensors that ranks hold in parts, put together."""
