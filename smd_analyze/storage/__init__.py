"""Report to HDF5 and back."""
