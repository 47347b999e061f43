"""Messages in the words of a Python program."""

import contextlib
import re
from collections.abc import Iterator

from jaxcnn.config import UserError

# Flags in messages of the library, as the arguments that they are in Python.
_FLAG = re.compile(r"--(?=(?:config\.[a-z0-9_.]+|[a-z_]+)\b)")
_COMMAND = re.compile(r"--mode=|python -m ")


def in_python(message: str) -> str:
    """A message with flags written as arguments: "workdir=…" for "--workdir=…". Whole commands stay as they are."""
    return message if _COMMAND.search(message) else _FLAG.sub("", message)


@contextlib.contextmanager
def python_words() -> Iterator[None]:
    """Errors of the user that leave the body are written for a Python program."""
    try:
        yield
    except UserError as error:
        error.args = (in_python(str(error)),)
        raise
