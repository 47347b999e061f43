"""Explanations: which pixels an output of a network comes from, and how far such an answer can be trusted. It reads
trained networks, and trains none."""
