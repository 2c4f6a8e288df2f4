"""Which files and folders are one checkpoint each."""
