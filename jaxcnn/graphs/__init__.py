"""A network as a graph of operators: made from its trace, perhaps made int8, and computed in JAX; it knows no files."""
