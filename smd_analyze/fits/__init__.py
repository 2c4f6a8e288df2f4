"""Tables to estimates with intervals, and to the state of a layer in words."""
