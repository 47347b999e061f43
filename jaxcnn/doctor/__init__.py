"""Checks whether this machine is ready to train: `python -m jaxcnn.doctor`."""
