"""One case: accepted, refused in plain lines, or a defect."""

import contextlib
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.data.decode import Unreadable

SECONDS = 60  # after which a case hangs
MEMORY = 3 << 30  # bytes of address space that a case may take

ACCEPTED, REFUSED, DEFECT = "accepted", "refused", "defect"


class Hangs(BaseException):
    """A case took too long; no handler of errors may catch it."""


def of(call: Callable[[], Any], *, lines: bool = False) -> tuple[str, str]:
    """What became of a case, and why; `lines`: a refusal may have a line for each mistake."""
    try:
        with _limits():
            call()
    except (UserError, Unreadable) as error:
        text = str(error)
        if not text.strip() or ("\n" in text and not lines) or "Traceback" in text or len(text) > 20_000:
            return DEFECT, f"not one line: {text[:300]!r}"
        return REFUSED, text
    except (Exception, Hangs) as error:
        where = traceback.extract_tb(error.__traceback__)
        own = [
            f"{frame.filename.rpartition('/jaxcnn/')[2]}:{frame.lineno}"
            for frame in where
            if "jaxcnn/" in frame.filename
        ]
        return DEFECT, f"{type(error).__name__}: {str(error)[:160]} at {', '.join(own[-2:])}"
    return ACCEPTED, ""


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """A limit on time and memory."""

    def hang(*_: object) -> None:
        raise Hangs(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hang)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
