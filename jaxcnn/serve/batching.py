"""Batches of requests: images that wait while the network is busy are answered together next."""

import asyncio
import collections
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

Answer = Callable[[Sequence[Any]], list[Any]]


class Batcher:
    """Answers images in batches, in one thread.

    A batch takes the images that wait when the network is free, at most `most`. If they are fewer, the first of them
    waits for more, but no longer than `wait` seconds. The number of waiting images is bounded before (`bound.Bound`).

    Args:
      answer: maps images to answers, in the same order; may take long.
      most: largest number of images in a batch.
      wait: longest wait for more images, seconds.
      batched: called with the size of each batch and the seconds of its answer.
    """

    def __init__(
        self,
        answer: Answer,
        most: int,
        wait: float,
        batched: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._answer, self._most, self._wait, self._batched = answer, most, wait, batched
        self._waiting: collections.deque[tuple[Any, asyncio.Future[Any]]] = collections.deque()
        self._arrived = asyncio.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "jaxcnn-answers")

    @property
    def waiting(self) -> int:
        """The number of images that are not yet in a batch."""
        return len(self._waiting)

    async def answered(self, image: Any) -> Any:
        """The answer for an image."""
        return (await self.all_answered([image]))[0]

    async def all_answered(self, images: Sequence[Any]) -> list[Any]:
        """The answers for images; an error is raised only when none of them is being computed any more."""
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        self._waiting.extend(zip(images, futures, strict=True))
        self._arrived.set()
        answers = await asyncio.gather(*futures, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def run(self) -> None:
        """Answer images in batches until the task is cancelled."""
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
        """Wait until an image is there or, with `seconds`, until another one comes or the time is over."""
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
        except Exception as error:  # each request gets the error; the server continues
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        self._batched(len(batch), time.perf_counter() - began)
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
