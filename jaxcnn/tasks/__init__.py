"""Tasks: what the answer for an image is, how wrong an output is, and which figures are reported."""
