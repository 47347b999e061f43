"""Measurements of jaxcnn beside its peers."""
