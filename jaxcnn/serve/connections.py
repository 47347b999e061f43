"""Counts connections, and closes those on which nothing happens."""

import asyncio
from typing import Any

LINGER_SECONDS = 1.0  # so that a client that is still sending can read why it is refused
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 42\r\n"
    b'retry-after: 1\r\nconnection: close\r\n\r\n{"error":"there are too many connections"}'
)


def address(host: str, port: int) -> str:
    """The URL of a server; an IPv6 address is in brackets (RFC 3986, section 3.2.2)."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def protocol(seconds: float, most: int) -> Any:
    """A variant of uvicorn's HTTP protocol with two bounds.

    uvicorn waits without end for the headers of a request, and for a client that does not read; above its own limit of
    connections it refuses the requests of all of them.

    Args:
      seconds: seconds after which a connection without an open request is closed.
      most: largest number of connections; a further client gets 503.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        """Watches one connection, and closes it when it is idle too long."""

        _timer: asyncio.TimerHandle | None = None
        _refused = False

        def _watch(self) -> None:
            under_way = self.cycle is not None and not self.cycle.response_complete
            if under_way and self._timer is not None:
                self._timer.cancel()
                self._timer = None
            elif not under_way and self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.abort)

        def connection_made(self, transport: Any) -> None:
            """Count a new connection; refuse it if there are too many."""
            super().connection_made(transport)
            self._refused = len(self.connections) > most
            if not self._refused:
                self._watch()
                return
            self.connections.discard(self)
            transport.write(FULL)
            transport.write_eof()
            self._timer = self.loop.call_later(LINGER_SECONDS, transport.abort)

        def data_received(self, data: bytes) -> None:
            """Pass on data from the client, which may be a whole request."""
            if not self._refused:
                super().data_received(data)
                self._watch()

        def on_response_complete(self) -> None:
            """Start the wait for the next request, now that the client has its answer or has only to read on."""
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection, which the client or the server has closed."""
            super().connection_lost(exc)
            if self._timer is not None:
                self._timer.cancel()

    return Protocol
