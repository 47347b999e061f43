"""The fault campaign: small runs drawn at random, disturbed at random, held against the undisturbed run bit for bit.

`python -m tests.campaign --help`; docs/reliability.md. (`benchmarks.campaign` is another one: of speed, on a GPU.)
"""
