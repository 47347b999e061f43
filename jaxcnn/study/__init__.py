"""Sweeps and searches: many runs as one study, in one Optuna store, run by one or many processes."""
