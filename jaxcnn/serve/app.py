"""The HTTP interface: images in the body of a request, answers as JSON."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import hmac
import logging
import math
import os
import pathlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from jaxcnn.config import UserError
from jaxcnn.data.as_stored import NPY
from jaxcnn.data.decode import Unreadable
from jaxcnn.serve import metrics, openapi, receive
from jaxcnn.serve.batching import Batcher
from jaxcnn.serve.bound import Bound, Busy, Held
from jaxcnn.serve.metrics import Metrics
from jaxcnn.serve.receive import Limits, Refused
from jaxcnn.serve.request_log import RequestLog
from jaxcnn.serve.service import Service

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_log = logging.getLogger("jaxcnn")
_HERE = pathlib.Path(__file__).parent
_CLOSING = (408, 413, 499, 500)  # with these codes, the unread rest of a body is not waited for
NO_MODEL = ""  # label of requests that name no network of the server


@dataclasses.dataclass
class _Seen:
    """What the log says about a request."""

    images: int = 0
    size: int = 0


class Interface:
    """The routes of the server, and what they share.

    Args:
      services: networks by name; the first one answers requests that name none.
      limits: what a client may send.
      log: log of requests.

    Attributes:
      batchers: batchers by the name of the network, while the application runs.
      bound: the bound of all networks together.
    """

    def __init__(self, services: Mapping[str, Service], limits: Limits, log: RequestLog | None = None) -> None:
        self._services, self._limits, self._log = services, limits, log
        self._first = next(iter(services))
        self.metrics = {name: Metrics() for name in services} | {NO_MODEL: Metrics()}
        self.bound, self.batchers = Bound(limits.requests), dict[str, Batcher]()
        self._decoders = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1, "jaxcnn-decode")
        self._cancelled = set[asyncio.Task[Any]]()  # requests without a client that still give back their places

    def app(self) -> "Starlette":
        """The ASGI application."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        routes = [
            Route("/", self._page),
            Route("/docs", self._docs),
            Route("/openapi.json", self._openapi),
            Route("/predict", self._predict, methods=["POST"]),
            Route("/model", self._model),
            Route("/models", self._models),
            Route("/models/{name}", self._model),
            Route("/models/{name}/predict", self._predict, methods=["POST"]),
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._metrics),
        ]
        return Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: "Starlette") -> AsyncIterator[None]:
        for name, service in self._services.items():
            counted = self._batched(name), self.metrics[name].left
            self.batchers[name] = Batcher(service.answers, service.most, self._limits.wait, *counted)
        tasks = [asyncio.create_task(batcher.run()) for batcher in self.batchers.values()]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _batched(self, name: str) -> Any:
        def batched(size: int, seconds: float) -> None:
            self.metrics[name].batched(size, seconds)
            self.bound.answered(size, seconds)

        return batched

    async def _predict(self, request: "Request") -> "Response":
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse

        began, code, headers, seen = time.perf_counter(), 200, dict[str, str](), _Seen()
        given = request.path_params.get("name", self._first)
        name, error, logged = given if given in self._services else NO_MODEL, "", ""
        try:
            response = JSONResponse(await self._answer(request, given, seen))
        except Refused as refused:
            code, headers, error, logged = refused.code, refused.headers, str(refused), refused.logged
        except Busy as busy:
            code, headers, error = 429, {"retry-after": str(busy.seconds)}, f"{busy}; try again later"
        except ClientDisconnect:  # the client is gone, so nobody reads this
            code, error = 499, "the client left"
        except Exception:
            _log.exception("a request failed")
            code, error = 500, "the server failed; its log has more"
        if code != 200:
            if code in _CLOSING:
                headers["connection"] = "close"
            response = JSONResponse({"error": error}, code, headers)
        seconds = time.perf_counter() - began
        self.metrics[name].responses[code] += 1
        self.metrics[name].request_seconds.observe(seconds)
        if self._log is not None:
            self._log.told(
                model=name, code=code, images=seen.images, size=seen.size, seconds=seconds, error=logged or error
            )
        return response

    async def _answer(self, request: "Request", name: str, seen: _Seen) -> Any:
        limits, given = self._limits, request.headers.get("authorization", "")
        if limits.token and not hmac.compare_digest(given.encode(), f"Bearer {limits.token}".encode()):
            raise Refused(401, "send the token as 'Authorization: Bearer <token>'", **{"www-authenticate": "Bearer"})
        if name not in self._services:
            raise self._no_model()
        receive.kind_of(request.headers)
        ahead = self.batchers[name].seconds_ahead
        if limits.deadline and ahead > limits.deadline:
            raise Busy(math.ceil(ahead), f"an answer would come after more than the {limits.deadline:g} s it may take")
        with contextlib.ExitStack() as stack:
            held = stack.enter_context(self.bound.admitted())
            sent = await receive.received(request, limits, held)
            seen.size = sent.size
            answers = (
                self._answers_of_form(name, sent.contents, seen)
                if sent.form
                else self._answers_of_body(name, sent.contents[0], held, seen)
            )
            work, places = asyncio.create_task(answers), stack.pop_all()
            work.add_done_callback(lambda _: places.close())  # also if the request ends before its work
        return await self._while_wanted(request, work)

    async def _while_wanted(self, request: "Request", work: "asyncio.Task[Any]") -> Any:
        """The result of `work`, which is cancelled when its client leaves or its time is over.

        Raises:
          ClientDisconnect: the client has left.
          Refused: the deadline is over.
        """
        from starlette.requests import ClientDisconnect

        leaving = asyncio.create_task(receive.left(request))
        seconds = self._limits.deadline
        try:
            await asyncio.wait({work, leaving}, timeout=seconds or None, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if leaving.done():
                raise ClientDisconnect
            raise Refused(504, f"the answer was not ready within {seconds:g} s")
        finally:
            leaving.cancel()
            if not work.done():
                work.cancel()
                self._cancelled.add(work)
                work.add_done_callback(self._cancelled.discard)

    async def _answers_of_form(self, name: str, contents: list[bytes], seen: _Seen) -> list[Any]:
        """The answer for each image of a form, or the reason why it cannot be read."""
        seen.images = len(contents)
        service = self._services[name]
        found = await asyncio.gather(
            *(self._in_thread(service.decode, each) for each in contents), return_exceptions=True
        )
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, Refused):
                raise each
        readable = [each for each in found if not isinstance(each, Refused)]
        answers = iter(await self.batchers[name].all_answered(readable))
        return [{"error": str(each)} if isinstance(each, Refused) else next(answers) for each in found]

    async def _answers_of_body(self, name: str, content: bytes, held: Held, seen: _Seen) -> Any:
        """The answer for an image, or the answers for an array of several images."""
        service, limits = self._services[name], self._limits
        count = await self._in_thread(service.stack_size, content) if content.startswith(NPY) else None
        seen.images = count or 1
        if seen.images > limits.images:
            raise Refused(413, f"a request may have at most {limits.images} images")
        if len(content) > seen.images * limits.body:
            raise Refused(413, f"an image may have at most {limits.body:,} bytes")
        held.at_least(seen.images)
        if count is None:
            return await self.batchers[name].answered(await self._in_thread(service.decode, content))
        return await self.batchers[name].all_answered(await self._in_thread(service.decode_stack, content))

    async def _in_thread(self, work: Any, content: bytes) -> Any:
        """The result of `work(content)` in a thread.

        Raises:
          Refused: the bytes cannot be read.
        """
        decoded = asyncio.get_running_loop().run_in_executor(self._decoders, work, content)
        try:
            return await asyncio.shield(decoded)
        except asyncio.CancelledError:
            await asyncio.wait([decoded])  # its bytes are held until then
            decoded.exception()
            raise
        except Unreadable as error:
            raise Refused(422, f"this is no image that can be read: {error}") from None
        except UserError as error:  # a package is not installed
            raise Refused(422, f"this server cannot read such images: {error}") from None

    def _no_model(self) -> Refused:
        return Refused(404, f"there is no network of this name; there are: {', '.join(self._services)}")

    async def _page(self, request: "Request") -> "Response":
        from starlette.responses import FileResponse

        return FileResponse(_HERE / "page.html", media_type="text/html")

    async def _docs(self, request: "Request") -> "Response":
        from starlette.responses import FileResponse

        return FileResponse(_HERE / "docs.html", media_type="text/html")

    async def _openapi(self, request: "Request") -> "Response":
        from starlette.responses import JSONResponse

        tasks = {name: service.facts()["task"] for name, service in self._services.items()}
        return JSONResponse(openapi.document(tasks, self._limits))

    async def _model(self, request: "Request") -> "Response":
        from starlette.responses import JSONResponse

        name = request.path_params.get("name", self._first)
        if name not in self._services:
            return JSONResponse({"error": str(self._no_model())}, 404)
        return JSONResponse(self._facts(name))

    async def _models(self, request: "Request") -> "Response":
        from starlette.responses import JSONResponse

        return JSONResponse([self._facts(name) for name in self._services])

    def _facts(self, name: str) -> dict[str, Any]:
        return {"name": name} | self._services[name].facts()

    async def _health(self, request: "Request") -> "Response":
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("ok\n")

    async def _ready(self, request: "Request") -> "Response":
        from starlette.responses import PlainTextResponse

        stopping = not self.batchers or self.bound.draining
        return PlainTextResponse("stopping\n" if stopping else "ready\n", 503 if stopping else 200)

    async def _metrics(self, request: "Request") -> "Response":
        from starlette.responses import PlainTextResponse

        gauges: dict[str, Mapping[str, int] | int] = {
            "jaxcnn_requests_under_way": self.bound.requests,
            "jaxcnn_images_under_way": self.bound.under_way,
            "jaxcnn_images_under_way_largest": self.bound.largest,
            "jaxcnn_images_waiting": {name: batcher.waiting for name, batcher in self.batchers.items()},
        }
        return PlainTextResponse(metrics.text(self.metrics, gauges), media_type="text/plain; version=0.0.4")
