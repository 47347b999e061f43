"""The HTTP interface: one image in the body of a request, its answer as JSON."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hmac
import logging
import os
import pathlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from jaxcnn.data.decode import Unreadable
from jaxcnn.serve.batching import Batcher, Busy
from jaxcnn.serve.metrics import Metrics
from jaxcnn.serve.service import Service

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_log = logging.getLogger("jaxcnn")
_PAGE = pathlib.Path(__file__).with_name("page.html")
RAW = "application/octet-stream"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a client may send.

    Attributes:
      body: bytes of an image.
      seconds: for its body to arrive.
      requests: under way at once.
      wait: seconds that an image waits for others.
      token: that a client must send; empty: none.
    """

    body: int
    seconds: float
    requests: int
    wait: float
    token: str = ""


class _Refused(Exception):
    def __init__(self, code: int, why: str, **headers: str) -> None:
        super().__init__(why)
        self.code, self.headers = code, headers


class Interface:
    """The routes and what they share; `batcher` is there while the application runs."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service, self._limits, self.metrics = service, limits, Metrics()
        self._decoders = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1, "jaxcnn-decode")
        self.batcher: Batcher | None = None

    def app(self) -> "Starlette":
        """The application."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        routes = [
            Route("/", self._page),
            Route("/predict", self._predict, methods=["POST"]),
            Route("/model", self._model),
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._metrics),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: "Starlette") -> AsyncIterator[None]:
        limits, service = self._limits, self._service
        self.batcher = Batcher(service.answers, service.most, limits.wait, limits.requests, self.metrics.batched)
        task = asyncio.create_task(self.batcher.run())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _predict(self, request: "Request") -> "Response":
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse

        began, code, headers = time.perf_counter(), 200, {}
        content: Any
        try:
            content = await self._answer(request)
        except _Refused as refused:
            code, headers, content = refused.code, refused.headers, {"error": str(refused)}
        except ClientDisconnect:  # nobody hears this
            code, content = 499, {"error": "the client left"}
        except Exception:
            _log.exception("a request failed")
            code, content = 500, {"error": "the server failed; its log has more"}
        self.metrics.responses[code] += 1
        self.metrics.request_seconds.observe(time.perf_counter() - began)
        if code != 200:
            headers["connection"] = "close"  # the rest of a body that was not read is not waited for
        return JSONResponse(content, code, headers)

    async def _answer(self, request: "Request") -> Any:
        limits, given = self._limits, request.headers.get("authorization", "")
        if limits.token and not hmac.compare_digest(given.encode(), f"Bearer {limits.token}".encode()):
            raise _Refused(401, "send the token as 'Authorization: Bearer <token>'", **{"www-authenticate": "Bearer"})
        kind = request.headers.get("content-type", RAW).partition(";")[0].strip().lower()
        if kind != RAW and not kind.startswith("image/"):
            raise _Refused(415, f"send one image as the body, with the content type image/… or {RAW}")
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limits.body:
            raise _Refused(413, f"an image may have at most {limits.body:,} bytes")
        assert self.batcher is not None
        try:
            with self.batcher.admitted():
                try:
                    async with asyncio.timeout(limits.seconds):
                        body = await self._body(request)
                except TimeoutError:
                    raise _Refused(408, f"the image did not arrive within {limits.seconds:g} s") from None
                loop = asyncio.get_running_loop()
                try:
                    image = await loop.run_in_executor(self._decoders, self._service.decode, body)
                except Unreadable as error:
                    raise _Refused(422, f"this is no image that can be read: {error}") from None
                return await self.batcher.answered(image)
        except Busy as busy:
            raise _Refused(429, f"{busy}; try again later", **{"retry-after": str(busy.seconds)}) from None

    async def _body(self, request: "Request") -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self._limits.body:
                raise _Refused(413, f"an image may have at most {self._limits.body:,} bytes")
            parts.append(part)
        return b"".join(parts)

    async def _page(self, request: "Request") -> "Response":
        from starlette.responses import FileResponse

        return FileResponse(_PAGE, media_type="text/html")

    async def _model(self, request: "Request") -> "Response":
        from starlette.responses import JSONResponse

        return JSONResponse(self._service.facts())

    async def _health(self, request: "Request") -> "Response":
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("ok\n")

    async def _ready(self, request: "Request") -> "Response":
        from starlette.responses import PlainTextResponse

        stopping = self.batcher is None or self.batcher.draining
        return PlainTextResponse("stopping\n" if stopping else "ready\n", 503 if stopping else 200)

    async def _metrics(self, request: "Request") -> "Response":
        from starlette.responses import PlainTextResponse

        under_way = self.batcher.under_way if self.batcher else 0
        return PlainTextResponse(self.metrics.text(under_way), media_type="text/plain; version=0.0.4")
