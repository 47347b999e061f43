"""Messages with the terms of a Python program instead of those of a command."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from typing import TypeVar

from jaxcnn.config import UserError
from jaxcnn.machine import dialects

# Flags in messages of the library, as the arguments in Python that correspond to them.
_FLAG = re.compile(r"--(?=(?:config\.[a-z0-9_.]+|[a-z_]+)\b)")
_NEGATED = re.compile(r"--no(?=(?:card|fold)\b)(\w+)")
_COMMAND = re.compile(r"--mode=|python -m ")


def in_python(message: str) -> str:
    """A message with flags written as arguments: "workdir=…" for "--workdir=…", "card=False" for "--nocard".

    Whole commands stay as they are.
    """
    return message if _COMMAND.search(message) else _FLAG.sub("", _NEGATED.sub(r"\1=False", message))


class _WithoutOrbax(logging.Filter):
    """Drops the log lines that orbax writes for every checkpoint, as commands do; its errors stay."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR or "orbax" not in record.pathname


_without_orbax = _WithoutOrbax()


@contextlib.contextmanager
def python_words() -> Iterator[None]:
    """Errors of the user that leave the body are written for a Python program, and orbax is quiet from now on.

    An interrupt in the body leaves JAX usable.
    """
    if "jax" in sys.modules:
        dialects.load()
    logging.getLogger("absl").addFilter(_without_orbax)  # added only once, however often this runs
    try:
        yield
    except UserError as error:
        error.args = (in_python(str(error)),)
        raise


Raised = TypeVar("Raised", bound=BaseException)


def one_line(error: Raised) -> Raised:
    """An exception that notebooks show as one line, without a traceback."""
    vars(error)["_render_traceback_"] = lambda: [f"{type(error).__name__}: {error}"]
    return error
