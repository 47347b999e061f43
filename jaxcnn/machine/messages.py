"""What the processes of a run send each other: a JSON value a line, of which nothing is believed but its form."""

import contextlib
import json
import socket
import time
from typing import Any

LONGEST = 2**28  # bytes of a message between processes that have met; what is gathered is small


def send(link: socket.socket, message: Any) -> None:
    """Send a line, if the connection is open: the reader finds out where it is not."""
    with contextlib.suppress(OSError):
        link.sendall(json.dumps(message).encode() + b"\n")


def read_line(link: socket.socket, seconds: float, most: int) -> Any:
    """The value of one line of at most `most` bytes; None where none comes in time.

    Reads byte by byte, as what follows belongs to the lifeline.
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
    """The value of a line; None where it has none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def understood(line: bytes) -> dict[str, Any] | None:
    """A message between processes that have met; None where it is none: see `Heartbeat`."""
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
