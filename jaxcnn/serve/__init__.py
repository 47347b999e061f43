"""A trained network behind HTTP: requests are answered in batches, and everything that clients can send is bounded."""
