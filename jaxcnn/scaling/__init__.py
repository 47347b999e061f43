"""Scaling of training over devices: measured on available devices, predicted for others."""
