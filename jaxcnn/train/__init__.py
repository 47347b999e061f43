"""The run: the rooms that know time, files and signals."""
