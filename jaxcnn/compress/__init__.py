"""Makes the weights of a trained network small, and measures what each step of that brings."""
