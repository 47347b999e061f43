"""Examples and batches: their sources, their order, and their processing."""
