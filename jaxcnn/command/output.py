"""Standard output and standard error that never stop the program that writes to them.

A reader may exit (`… | head`), a terminal may be closed, a disk may be full. Output that cannot be written is then
dropped, at a level below `print`, logging, and rich, which would exit at a closed pipe.
"""

import contextlib
import errno
import io
import os
import select
import shutil
import sys
from typing import Any

_GONE = (errno.EPIPE, errno.EIO)  # there is no reader any more


class _Lasting(io.FileIO):
    """A writable descriptor that raises no errors.

    Attributes:
      failure: why output was dropped although it has a reader; None if it was not.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all bytes, or drop the rest; return the number of bytes in `data`."""
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        try:
            while rest:
                written = super().write(rest)
                if written is None:  # a non-blocking descriptor that is full
                    select.select([], [self], [])
                else:
                    rest = rest[written:]
        except OSError as error:
            if error.errno not in _GONE:
                self.failure = error
        return size


def keep() -> None:
    """Replace standard output and error by such streams. Must be called before any code stores the originals."""
    for descriptor in range(3):  # the next opened file would reuse a closed descriptor, and receive our messages
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)


def failure() -> OSError | None:
    """Why part of the standard output was lost although it has a reader; None if it was not."""
    buffer = getattr(sys.stdout, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw.failure if isinstance(raw, _Lasting) else None


def fitting(line: str) -> str:
    """A line for standard output: broken between words where a terminal is narrower; unchanged elsewhere."""
    if not sys.stdout.isatty():
        return line
    from jaxcnn.train.terminal import wrapped

    columns = shutil.get_terminal_size().columns
    return "\n".join(wrapped(each, columns) if len(each) > columns else each for each in line.split("\n"))


def has_colours(stream: Any) -> bool:
    """Whether a stream is a terminal that shows colours, and its user wants them (NO_COLOR, https://no-color.org)."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")
    return wanted and stream is not None and stream.isatty()


def _lasting(stream: Any, descriptor: int) -> Any:
    if stream is None:  # it was closed when Python started
        return io.TextIOWrapper(io.BufferedWriter(_Lasting(descriptor, "wb", closefd=False)))
    if not isinstance(stream, io.TextIOWrapper) or stream.name not in ("<stdout>", "<stderr>"):
        return stream  # replaced by other code, such as a notebook or a test
    with contextlib.suppress(OSError):
        stream.flush()
    raw = _Lasting(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
