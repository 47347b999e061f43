"""Benchmarks of jaxcnn and its peers. The package imports nothing from here, and this module imports nothing."""
