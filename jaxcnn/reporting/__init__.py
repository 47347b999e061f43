"""Results of runs as tables, pictures and one page; made from their folders alone, without JAX."""
