"""Sweeps and searches: many runs as one study, in one Optuna store, by one or many processes."""
