"""JSON that others may have written: files of a workdir, messages from the network."""

import json
from typing import Any


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: the text is not valid JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_or_keep(text: str) -> Any:
    """The value of a JSON text; a text that is not JSON is returned as it is."""
    try:
        return parse(text)
    except ValueError:
        return text
