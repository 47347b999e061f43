"""The machine of a run: devices, hosts, memory and files. Nothing here depends on images or networks."""
