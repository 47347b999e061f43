"""The request log: a line of JSON for each request that asks for answers."""

import datetime
import json
from typing import Any, Protocol

MOST_LETTERS = 200  # most letters of a reason


class Stream(Protocol):
    """A stream to which lines are written."""

    def write(self, text: str, /) -> Any:
        """Write a text to the stream."""

    def flush(self) -> Any:
        """Write what is still in the buffer."""


class RequestLog:
    """Writes lines to a stream. Nothing in them is taken from clients as it is: no file name, no header, no token."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def told(self, *, model: str, code: int, images: int, size: int, seconds: float, error: str = "") -> None:
        """Write the line of a request.

        Args:
          model: name of the network; empty if the server has no network of the requested name.
          code: code of the answer; 499: the client has left.
          images: number of images that were answered, or refused one by one.
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
