"""Connections on which nothing happens are closed: those that send no request, or do not read its answer."""

import asyncio
from typing import Any


def protocol(seconds: float) -> Any:
    """uvicorn's protocol of HTTP that leaves a client which has no request under way for so many seconds.

    uvicorn itself waits for the headers of a request without end, so a few hundred idle clients would keep others out.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        """Watches one connection."""

        _timer: asyncio.TimerHandle | None = None

        def _watch(self) -> None:
            under_way = self.cycle is not None and not self.cycle.response_complete
            if under_way and self._timer is not None:
                self._timer.cancel()
                self._timer = None
            elif not under_way and self._timer is None:
                self._timer = self.loop.call_later(seconds, self.transport.abort)

        def connection_made(self, transport: Any) -> None:
            """A client has come."""
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            """It has sent something, perhaps a whole request."""
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            """It has its answer, or will have it when it reads on."""
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            """It has left."""
            super().connection_lost(exc)
            if self._timer is not None:
                self._timer.cancel()

    return Protocol
