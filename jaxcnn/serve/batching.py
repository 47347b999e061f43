"""Batches made of requests: what waits while the network is busy is answered together next."""

import asyncio
import collections
import concurrent.futures
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Answer = Callable[[Sequence[Any]], list[Any]]
SMOOTHING = 0.9  # weight of the old average of seconds per image


class Busy(Exception):
    """No more requests are admitted now; try again after `seconds`."""

    def __init__(self, seconds: int, why: str) -> None:
        super().__init__(why)
        self.seconds = seconds


class Batcher:
    """Answers images in batches, in one thread.

    A batch is what waits when the network is free, at most `most` images. If these are fewer, the first of them waits
    for company, but no longer than `wait` seconds. At most `limit` requests are under way at once, from before their
    images are read to their answers, which bounds the memory.

    Args:
      answer: from images to their answers, in the same order; may take long.
      most: images in a batch.
      wait: seconds.
      limit: requests.
      batched: called with the size of each batch and the seconds of its answer.
    """

    def __init__(
        self,
        answer: Answer,
        most: int,
        wait: float,
        limit: int,
        batched: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._answer, self._most, self._wait, self._limit, self._batched = answer, most, wait, limit, batched
        self._waiting: collections.deque[tuple[Any, asyncio.Future[Any]]] = collections.deque()
        self._arrived = asyncio.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "jaxcnn-answers")
        self._seconds_per_image = 0.0
        self.under_way = 0
        self.draining = False

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """One request under way.

        Raises:
          Busy: there are too many, or the server is about to stop.
        """
        if self.draining:
            raise Busy(1, "the server is stopping")
        if self.under_way >= self._limit:
            raise Busy(self.retry_after(), f"{self.under_way} requests are under way")
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    def retry_after(self) -> int:
        """Seconds in which the requests that are under way will probably be answered; at least 1."""
        return max(1, math.ceil(self.under_way * self._seconds_per_image))

    async def answered(self, image: Any) -> Any:
        """The answer for an image."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((image, future))
        self._arrived.set()
        return await future

    async def run(self) -> None:
        """Answer, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrive(None)
            until = loop.time() + self._wait
            while len(self._waiting) < self._most and loop.time() < until:
                await self._arrive(until - loop.time())
            taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            batch = [(image, future) for image, future in taken if not future.done()]  # else its client has left
            if batch:
                await self._answer_all(batch)

    async def _arrive(self, seconds: float | None) -> None:
        """Wait until something is there, or, with `seconds`, until more has come or they are over."""
        if seconds is None and self._waiting:
            return
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()

    async def _answer_all(self, batch: list[tuple[Any, "asyncio.Future[Any]"]]) -> None:
        began = time.perf_counter()
        try:
            answers: list[Any] = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._answer, [image for image, _ in batch]
            )
        except Exception as error:  # each request gets it; the server goes on
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        seconds = time.perf_counter() - began
        each = seconds / len(batch)
        old = self._seconds_per_image
        self._seconds_per_image = SMOOTHING * old + (1 - SMOOTHING) * each if old else each
        self._batched(len(batch), seconds)
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def drain(self) -> None:
        """Admit nothing more, and wait for what is under way."""
        self.draining = True
        while self.under_way:
            await asyncio.sleep(0.01)
