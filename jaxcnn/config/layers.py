"""Patterns of parameter paths, such as those in `optim.layers`."""

import re
from collections.abc import Iterable, Sequence

from jaxcnn.config.errors import ConfigError, UserError

Layers = tuple[tuple[str, float], ...]  # (regular expression, number), such as a factor of the rate; 0: frozen


def factor_of(path: str, layers: Layers) -> float:
    """The factor of the first pattern that matches a whole path such as "block1_2/conv1/kernel"; 1 if none does."""
    return number_of(path, layers, 1.0)


def number_of(path: str, layers: Layers, default: float) -> float:
    """The number of the first pattern that matches a whole path; `default` if none does."""
    return next((number for pattern, number in layers if re.fullmatch(pattern, path)), default)


def check_patterns(
    where: str, patterns: Iterable[str], paths: Sequence[str], what: str, error: type[UserError] = ConfigError
) -> None:
    """Refuse patterns that are no regular expressions, or match no whole path.

    Args:
      where: the field or flag that has them, for messages.
      patterns: regular expressions.
      paths: what they may match.
      what: the end of the message on one that matches nothing: what it should match.
      error: the class of the error.
    """
    for pattern in patterns:
        try:
            found = any(re.fullmatch(pattern, path) for path in paths)
        except re.error as why:
            raise error(f"{where}: {pattern!r:.200} is not a regular expression ({why})") from why
        if not found:
            raise error(f"{where}: {pattern!r:.200} matches no {what}")
