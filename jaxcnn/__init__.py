"""jaxcnn: image-classification CNNs in JAX, from one CPU core to many GPU hosts."""

__version__ = "0.1.0"
