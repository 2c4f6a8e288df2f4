"""Settings of the files and the caller's word to the learning rate and decay that acted."""
