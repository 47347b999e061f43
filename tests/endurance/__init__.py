"""Endurance: many steps and many requests, while memory, open files, threads and speed are sampled.

`python -m tests.endurance --help`; docs/reliability.md.
"""
