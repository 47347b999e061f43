"""The log of a run: the progress line, metrics.jsonl, TensorBoard events."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import time
import zlib
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from jaxcnn.config import UserError
from jaxcnn.machine import extras
from jaxcnn.train import curves, terminal
from jaxcnn.train.loggers import Loggers
from jaxcnn.train.terminal import duration as duration
from jaxcnn.train.workdir import free_name

LINE_SECONDS = 10.0  # seconds between progress lines if the output is not a terminal


class _Lasting(Console):
    """A console whose reader may close the pipe, as in `… | head`; rich's own would exit the process, code 1."""

    def on_broken_pipe(self) -> None:
        """Stop printing when the reader has closed the pipe."""
        self.quiet = True


class Logbook:
    """Writes records to `metrics.jsonl`, TensorBoard and other loggers, and shows the user the progress of the run.

    On a terminal, the progress is a bar, rewritten in place, and a line for each evaluation that stays; elsewhere it is
    a plain line every ten seconds, of `key value` pairs in a fixed order that grep and awk can read. Of several
    processes, only the first `writes`. Without `progress_lines`, the caller shows the progress.

    Attributes:
      bar: the bar; None if the output is no terminal, or the caller shows the progress.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        tensorboard: bool,
        writes: bool = True,
        output: TextIO | None = None,
        progress_lines: bool = True,
        loggers: Loggers | None = None,
    ) -> None:
        self._writes = writes
        self.path = workdir / "metrics.jsonl"
        self._workdir = workdir
        self._tensorboard = tensorboard
        self._events: concurrent.futures.Future[Any] | None = None
        self._progress_lines = progress_lines
        self.console = _console(output, quiet=not writes)
        self._terminal = writes and self.console.is_terminal and not self.console.is_dumb_terminal
        self.bar = terminal.Bar(self.console) if self._terminal and progress_lines else None
        self._last_line = 0.0
        self._file: Any = None
        self._loggers = loggers
        self.finished = False  # whether the run is over, for the loggers
        self.crc32 = 0  # CRC-32 of all bytes of metrics.jsonl

    def open(self, length: int, step: int, *, crc32: int | None = None, resumes: bool = True) -> list[str]:
        """Start writing after the first `length` bytes of `metrics.jsonl`; drop what a lost run wrote after `step`.

        Args:
          length: bytes in the file when the checkpoint of `step` was made; 0 for a new run.
          step: step of the checkpoint.
          crc32: CRC-32 of these bytes; None if not known.
          resumes: whether the run resumes from a checkpoint; if not, existing records belong to a run that has lost all
            its checkpoints, and are kept under another name.

        Returns:
          Remarks on the existing file and on missing packages.

        Raises:
          UserError: the file is shorter than `length`, or not a regular file.
        """
        if not self._writes:
            return []
        if self.path.exists() and not self.path.is_file():
            raise UserError(f"{self.path} is not a regular file; move it away, or start again in another workdir")
        remarks = [] if resumes else self._set_aside()
        self.path.touch()
        if self.path.stat().st_size < length:
            raise UserError(
                f"{self.path} has {self.path.stat().st_size} bytes, but had {length} when the checkpoint of step "
                f"{step} was saved; restore it from a backup, or start again in another workdir"
            )
        self._file = self.path.open("r+b")
        self.crc32 = zlib.crc32(self._file.read(length))
        if crc32 not in (None, self.crc32):
            remarks += curves.damage(self._workdir) or [
                f"{self.path} has changed since the checkpoint of step {step}; it is used as it is"
            ]
        self._file.truncate(length)
        self._file.seek(length)
        if self._tensorboard and (lack := _without_tensorboard()):
            remarks.append(lack)
        elif self._tensorboard:  # created while the first step runs, as its imports take time
            pool = concurrent.futures.ThreadPoolExecutor(1, "jaxcnn-tensorboard")
            self._events = pool.submit(_events, self._workdir / "tensorboard", step)
            pool.shutdown(wait=False)
        return remarks

    def _set_aside(self) -> list[str]:
        """Rename the log of a run whose checkpoints are lost; return remarks."""
        if not self.path.exists() or not self.path.stat().st_size:
            return []
        aside = free_name(self.path.with_stem("metrics-lost"))
        self.path.rename(aside)
        return [
            f"there is a log in {self._workdir}, but no checkpoint: the run starts from the beginning, and the log is "
            f"kept as {aside.name}"
        ]

    def length(self) -> int:
        """The number of bytes in `metrics.jsonl`, after all of them are written to disk."""
        if not self._writes:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Append a record; `kind` is train, val, test or pbt. Raises OSError if `metrics.jsonl` cannot be written."""
        if not self._writes:
            return
        line = f"{json.dumps({'kind': kind, 'step': step, **values})}\n".encode()
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.crc32 = zlib.crc32(line, self.crc32)
        if self._loggers is not None:
            self._tell(self._loggers.add(kind, step, values))
        if self._events is not None:
            try:
                self._events.result().add(kind, step, values)
            except OSError as error:
                self._close_events()
                self.say(f"jaxcnn: no more TensorBoard events are written until the next start: {error.strerror}")

    def say(self, line: str, style: str = "") -> None:
        """Print a line for the user, above the progress line; on a terminal, in a style of `jaxcnn.train.terminal`."""
        if not self._writes:
            return
        with contextlib.suppress(OSError):  # an output that fails stops no run
            if self._terminal:
                line = terminal.wrapped(line, self.console.width)
            self.console.print(Text(line, style=style), soft_wrap=True)
            self.console.file.flush()

    def progress(self, line: str, *, now: bool = False) -> None:
        """Print the plain progress line, at most every ten seconds unless `now`; print nothing if there is a bar."""
        if self.bar is not None or not self._progress_lines:
            return
        if now or time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self.say(line)

    def close(self) -> None:
        """Close the files and the bar."""
        if self.bar is not None:
            self.bar.stop()
        self._close_events()
        if self._loggers is not None:
            self._tell(self._loggers.close(self.finished))
        if self._file is not None:
            with contextlib.suppress(OSError):  # from a record that could not be written, already reported
                self._file.close()

    def _tell(self, lines: list[str]) -> None:
        for line in lines:
            self.say(f"jaxcnn: {line}")

    def _close_events(self) -> None:
        if self._events is not None and not self._events.exception():
            with contextlib.suppress(OSError):
                self._events.result().close()
        self._events = None


def _console(output: TextIO | None, quiet: bool) -> Console:
    """The console for the lines of a run. In a notebook they are plain text: rich would make HTML of each line.

    A notebook's standard output claims to be a terminal, but cannot rewrite a line.
    """
    terminal = False if Console().is_jupyter else None
    return _Lasting(
        file=output,
        force_jupyter=False,
        force_terminal=terminal,
        highlight=False,
        emoji=False,
        soft_wrap=True,
        quiet=quiet,
    )


def _without_tensorboard() -> str:
    """A remark if events cannot be written because a package is missing; else an empty string."""
    try:
        extras.need("tensorboard", "config.run.tensorboard=True")
    except extras.MissingExtra as error:
        return f"no TensorBoard events are written: {error}"
    return ""


def _events(folder: pathlib.Path, step: int) -> Any:
    from jaxcnn.train.events import Events

    return Events(folder, step)
