"""The machine that a run is on: devices, hosts, memory, files; nothing here knows of images or networks."""
