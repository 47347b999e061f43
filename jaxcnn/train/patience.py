"""Messages while something takes long, such as compiling: a spinner on a terminal, plain lines elsewhere."""

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import jax
from rich.console import Console
from rich.text import Text

from jaxcnn.data import cache
from jaxcnn.train.logbook import LINE_SECONDS, duration

WORTH_SECONDS = 1.0  # shorter waits are not shown


@contextlib.contextmanager
def shown(
    what: str,
    console: Console,
    say: Callable[[str], None],
    *,
    before: float | None = None,
    first: float = WORTH_SECONDS,
) -> Iterator[None]:
    """Show, while the body runs, `what` it does, for how long already, and how long it took last time.

    On a terminal, this is one line, shown after a second, which vanishes at the end; elsewhere, a line given to `say`
    after `first` seconds and then every ten seconds. `before` is the seconds of last time; None if not known.
    """
    done, began = threading.Event(), time.monotonic()
    expected = "" if before is None else f", {duration(before)} last time"

    def line() -> str:
        return f"{what} for {duration(time.monotonic() - began)}{expected}"

    def tell() -> None:
        if done.wait(WORTH_SECONDS if console.is_terminal else first):
            return
        if not console.is_terminal:
            say(f"  {line()}")
            while not done.wait(LINE_SECONDS):
                say(f"  {line()}")
            return
        with console.status(Text(line()), spinner="dots") as status:
            console.show_cursor(True)  # a signal may end the process before it can show the cursor again
            while not done.wait(1.0):
                status.update(Text(line()))

    thread = threading.Thread(target=tell, name="jaxcnn-patience", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def last_time(key: str) -> float | None:
    """The seconds that `took` last recorded for a key; None if not known."""
    with contextlib.suppress(OSError, ValueError):
        file = _file(key)
        return float(file.read_text()) if file is not None else None
    return None


def took(key: str, seconds: float) -> None:
    """Record the seconds for the next start, if they were long enough to be shown."""
    file = _file(key)
    if file is not None and seconds >= WORTH_SECONDS:
        with contextlib.suppress(OSError):
            cache.write_whole(file, lambda opened: opened.write(f"{seconds:.3f}\n".encode()))


def _file(key: str) -> pathlib.Path | None:
    """The file of a key, beside the cached compiled programs; None if these are not kept in a local folder."""
    kept = jax.config.values["jax_compilation_cache_dir"] or ""
    if not kept or "://" in kept:
        return None
    return pathlib.Path(kept) / "seconds" / cache.fingerprint([key])
