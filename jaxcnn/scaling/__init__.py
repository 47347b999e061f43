"""How training scales over devices: measured on those that are here, predicted for those that are not."""
