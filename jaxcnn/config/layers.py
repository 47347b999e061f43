"""Patterns of parameter paths, such as those in `optim.layers`."""

import re

Layers = tuple[
    tuple[str, float], ...
]  # (regular expression, number), such as the factor of the learning rate; 0: frozen


def factor_of(path: str, layers: Layers) -> float:
    """The factor of the first pattern that matches a whole path such as "block1_2/conv1/kernel"; 1 if none does."""
    return number_of(path, layers, 1.0)


def number_of(path: str, layers: Layers, default: float) -> float:
    """The number of the first pattern that matches a whole path; `default` if none does."""
    return next((number for pattern, number in layers if re.fullmatch(pattern, path)), default)
