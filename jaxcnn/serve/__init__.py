"""A trained network behind HTTP: batches made of what comes, and a bound on everything that a client can send."""
