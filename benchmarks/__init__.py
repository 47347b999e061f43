"""jaxcnn measured beside its peers. Nothing here is imported by the package, and importing this imports nothing."""
