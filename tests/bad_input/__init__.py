"""Bad input at scale: wrong config values and damaged files, drawn at random; `python -m tests.bad_input --help`."""
