"""Bytes to a tree of lazy tensors; one file per format, strangers to each other."""
