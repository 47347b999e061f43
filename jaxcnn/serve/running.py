"""Runs the interface behind a port: for the command until a signal, for a notebook in a thread until it is closed."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxcnn.serve import connections
from jaxcnn.serve.app import Interface

SPARE_CONNECTIONS = 512  # connections for health and metrics, and for requests that get 429
LOOK_SECONDS = 0.05  # between two looks at whether to stop


async def serve(
    interface: Interface,
    sockets: Sequence[socket.socket],
    seconds: float,
    requests: int,
    told: Callable[[str], None],
    stopping: Callable[[], bool],
) -> None:
    """Answer requests until `stopping`; then admit none any more, answer those under way, and return.

    Args:
      interface: the networks.
      sockets: where it listens (`connections.taken`); they are closed at the end.
      seconds: the longest time for a request to arrive.
      requests: most images under way at once.
      told: is called with the URL once requests are answered.
      stopping: is asked again and again.

    Raises:
      UserError: another program began to listen there meanwhile.
    """
    import uvicorn

    class Server(uvicorn.Server):
        """A uvicorn server that leaves signals to its caller."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    config = uvicorn.Config(
        interface.app(),
        log_level="error",
        timeout_keep_alive=5,
        http=connections.protocol(seconds, requests + SPARE_CONNECTIONS),
        ws="none",
        server_header=False,
    )
    server = Server(config)

    async def listen() -> None:
        try:
            await server.serve(list(sockets))
        except OSError as error:
            host, port, *_ = sockets[0].getsockname()
            raise connections.no_listening(host, port, error) from None

    served = asyncio.create_task(listen())
    is_told = False
    while not served.done():
        await asyncio.sleep(LOOK_SECONDS)
        if server.started and not is_told:
            is_told = True
            bound_to, number, *_ = sockets[0].getsockname()
            told(connections.address(bound_to, number))
        if stopping() and not server.should_exit:
            await interface.bound.drain()
            server.should_exit = True
    await served


class Running:
    """A server in a thread of this process, from `run.serve`; also a context manager that closes it at its end.

    Attributes:
      address: its URL.
    """

    def __init__(self, interface: Interface, sockets: Sequence[socket.socket], seconds: float, requests: int) -> None:
        self.address = ""
        self._close, self._ready = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._given = (interface, sockets, seconds, requests)
        self._thread = threading.Thread(target=self._run, name="jaxcnn-serve", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        async def main() -> None:
            await serve(*self._given, self._told, self._close.is_set)

        try:
            asyncio.run(main())
        except Exception as error:  # told by the thread that started this one
            self._error = error
        finally:
            self._ready.set()

    def _told(self, address: str) -> None:
        self.address = address
        self._ready.set()

    def close(self) -> None:
        """Admit no request any more, answer those under way, and stop."""
        self._close.set()
        self._thread.join()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<server on {self.address}: {'running' if self._thread.is_alive() else 'closed'}>"
