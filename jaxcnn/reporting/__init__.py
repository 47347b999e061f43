"""What runs have found, as tables, pictures and one page; from their folders alone, without JAX."""
