"""One run: everything that deals with time, files and signals."""
