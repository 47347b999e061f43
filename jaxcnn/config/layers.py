"""Patterns of parameter paths, such as those in `optim.layers`."""

import re

Layers = tuple[tuple[str, float], ...]  # (regular expression, factor of the learning rate; 0: frozen)


def factor_of(path: str, layers: Layers) -> float:
    """The factor of the first pattern that matches a whole path such as "block1_2/conv1/kernel"; 1 if none does."""
    return next((factor for pattern, factor in layers if re.fullmatch(pattern, path)), 1.0)
