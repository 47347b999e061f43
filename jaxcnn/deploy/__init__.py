"""A trained network as a file that other programs run, and how quick it is there; it knows nothing of training."""
