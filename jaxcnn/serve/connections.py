"""Takes the address of a server, counts its connections, and closes those on which nothing happens."""

import asyncio
import errno
import os
import socket
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.text import shown

LINGER_SECONDS = 1.0  # so that a client that is still sending can read why it is refused
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 42\r\n"
    b'retry-after: 1\r\nconnection: close\r\n\r\n{"error":"there are too many connections"}'
)


def address(host: str, port: int) -> str:
    """The URL of a server; an IPv6 address is in brackets (RFC 3986, section 3.2.2)."""
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def taken(host: str, port: int) -> list[socket.socket]:
    """Sockets that are bound to all addresses of a host, so that no other program gets them.

    A client is refused until a server listens on them.

    Args:
      host: its name or address.
      port: the port; 0: a free one, the same for all addresses.

    Raises:
      UserError: another program has the port, or this machine does not have the address.
    """
    sockets: list[socket.socket] = []
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for number, (family, kind, protocol_number, _, place) in enumerate(places, start=1):
            try:
                bound_to = sockets[0].getsockname()[1] if sockets else port
                sockets.append(_bound(family, kind, protocol_number, (place[0], bound_to, *place[2:])))
            except OSError as error:  # "localhost" may have an IPv6 address where there is no IPv6
                absent = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
                if not absent or (number == len(places) and not sockets):
                    raise
    except (OSError, UnicodeError) as error:
        for each in sockets:
            each.close()
        raise no_listening(host, port, error) from None
    return sockets


def _bound(family: int, kind: int, protocol_number: int, place: tuple[Any, ...]) -> socket.socket:
    made = socket.socket(family, kind, protocol_number)
    try:
        if os.name == "posix":  # where it allows a port whose last connections are just closing
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(place)
    except OSError:
        made.close()
        raise
    return made


def no_listening(host: str, port: int, error: Exception) -> UserError:
    """The error for an address that a server cannot have."""
    reason = (isinstance(error, OSError) and error.strerror) or "it is no name of a host"
    return UserError(f"--host={shown(host)} --port={port} cannot be listened on; choose another ({reason})")


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
