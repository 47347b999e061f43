"""Standard output and standard error that never end what writes to them.

A reader may go away (`… | head`), a terminal may be closed, the disk behind a file may be full. What cannot be written
is then dropped, below everything that writes: `print`, logging, and rich, which would exit at a closed pipe.
"""

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any

_GONE = (errno.EPIPE, errno.EIO)  # nobody is there to read it


class _Lasting(io.FileIO):
    """A descriptor to write to that raises nothing.

    Attributes:
      failure: why something was dropped though somebody wanted it; None: nothing was.
    """

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all of the bytes, or drop the rest of them; return how many there are."""
        rest = memoryview(data).cast("B")
        size = rest.nbytes
        try:
            while rest:
                written = super().write(rest)
                if written is None:  # a descriptor that does not block, and is full
                    select.select([], [self], [])
                else:
                    rest = rest[written:]
        except OSError as error:
            if error.errno not in _GONE:
                self.failure = error
        return size


def keep() -> None:
    """Make standard output and standard error such; to be called before anybody holds the streams as they are."""
    for descriptor in range(3):  # one that is closed would be taken by the next file, which then got our messages
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)


def failure() -> OSError | None:
    """Why some of the standard output is lost, though somebody wanted it."""
    buffer = getattr(sys.stdout, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw.failure if isinstance(raw, _Lasting) else None


def _lasting(stream: Any, descriptor: int) -> Any:
    if stream is None:  # it was closed when Python started
        return io.TextIOWrapper(io.BufferedWriter(_Lasting(descriptor, "wb", closefd=False)))
    if not isinstance(stream, io.TextIOWrapper) or stream.name not in ("<stdout>", "<stderr>"):
        return stream  # somebody else's, such as a notebook's or a test's
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
