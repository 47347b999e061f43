"""A network as a graph of operators: made from its trace, with products of int8, computed in JAX; it knows no file."""
