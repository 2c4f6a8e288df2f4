"""What a tensor is, by its name and its neighbours: weight, buffer, average, master."""
