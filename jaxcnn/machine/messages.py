"""Messages between the processes of a run: one JSON value per line, accepted only in the expected form."""

import contextlib
import json
import socket
import time
from typing import Any

from jaxcnn.machine import json_text

LONGEST = 2**28  # bytes of a message between joined processes; gathered values are small


def send(link: socket.socket, message: Any) -> None:
    """Send a line; errors are ignored, because the reading thread detects a closed connection."""
    with contextlib.suppress(OSError):
        link.sendall(json.dumps(message).encode() + b"\n")


def read_line(link: socket.socket, seconds: float, most: int) -> Any:
    """The value of one line of at most `most` bytes; None if none arrives within `seconds`.

    Reads byte by byte, because the data after the line belongs to the heartbeat.
    """
    line = bytearray()
    deadline = time.monotonic() + seconds
    with contextlib.suppress(OSError):
        while not line.endswith(b"\n") and len(line) < most:
            link.settimeout(max(deadline - time.monotonic(), 0.001))
            if not (byte := link.recv(1)):
                break
            line += byte
        return parsed(bytes(line))
    return None


def parsed(line: bytes) -> Any:
    """The value of a line; None if it is not valid."""
    try:
        return json_text.parse(line)
    except ValueError:
        return None


def understood(line: bytes) -> dict[str, Any] | None:
    """A message between joined processes (see `Heartbeat`); None if it is not one."""
    message = parsed(line)
    if not isinstance(message, dict):
        return None
    if "round" in message:
        whole = type(message["round"]) is int and ("value" in message or isinstance(message.get("values"), list))
    elif "leaving" in message:
        kinds = {"cause": str, "code": int, "passed_on": bool}
        whole = all(type(message.get(name)) is kind for name, kind in kinds.items())
    else:
        whole = True
    return message if whole else None
