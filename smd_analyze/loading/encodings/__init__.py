"""Ways in which values are written, whatever they mean: protocol buffers, msgpack, NumPy, zarr."""
