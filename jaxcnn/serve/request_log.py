"""A line of JSON for each request that asks for answers."""

import datetime
import json
from typing import Any, Protocol

MOST_LETTERS = 200  # of a reason


class Stream(Protocol):
    """Where lines are written."""

    def write(self, text: str, /) -> Any:
        """Write a text."""

    def flush(self) -> Any:
        """Write what is kept back."""


class RequestLog:
    """Writes to a stream. Nothing in a line is as a client sent it: no name of a file, no header, no token."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def told(self, *, model: str, code: int, images: int, size: int, seconds: float, error: str = "") -> None:
        """Write a line.

        Args:
          model: name of the network; empty where there is none of the name that was asked for.
          code: of the answer; 499: the client left.
          images: that were answered or refused one by one.
          size: bytes of the body, as far as it was read.
          seconds: from the headers to the answer.
          error: why the request was refused.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        record: dict[str, Any] = {
            "time": now, "model": model, "code": code, "images": images, "bytes": size,
            "milliseconds": round(1000 * seconds, 3),
        }  # fmt: skip
        if error:
            record["error"] = error[:MOST_LETTERS]
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
