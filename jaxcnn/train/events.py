"""TensorBoard events, by tensorboardX's record writer without its threads: a full disk neither ends nor hangs a run."""

import importlib.abc
import pathlib
import socket
import sys
import threading
import time
from typing import Any

FLUSH_SECONDS = 30.0


class Events:
    """Writes scalars to a folder; they replace those of a lost run after `step`.

    Raises:
      OSError: the folder cannot be written; `add` raises it too.
    """

    def __init__(self, folder: pathlib.Path, step: int) -> None:
        # tensorboardX imports PyTorch if it is installed; that takes seconds, and scalars do not need it.
        hidden = _HiddenTorch()
        sys.meta_path.insert(0, hidden)
        try:
            from tensorboardX import RecordWriter
            from tensorboardX.proto import event_pb2
        finally:
            sys.meta_path.remove(hidden)
        self._event = event_pb2.Event
        folder.mkdir(parents=True, exist_ok=True)
        self._file = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"))
        self._flushed = time.monotonic()
        self._write(file_version="brain.Event:2")
        self._write(step=step + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def add(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Append the numeric values of a record."""
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
        summary = {"value": [{"tag": f"{kind}/{name}", "simple_value": value} for name, value in numbers.items()]}
        self._write(step=step, summary=summary)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._file.flush()

    def close(self) -> None:
        """Write all pending events. Raises OSError if that fails."""
        self._file.close()

    def _write(self, **fields: Any) -> None:
        self._file.write(self._event(wall_time=time.time(), **fields).SerializeToString())


class _HiddenTorch(importlib.abc.MetaPathFinder):
    """Hides PyTorch from imports in the thread that creates this; other threads may import it meanwhile."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        """Return None, so that the next finders are tried. Raises ModuleNotFoundError to hide PyTorch."""
        if name == "torch" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("torch is not needed for scalars", name=name)
