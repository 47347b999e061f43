"""Batches of requests: images that wait while the network is busy are answered together next."""

import asyncio
import collections
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from jaxcnn.serve.bound import smoothed

Answer = Callable[[Sequence[Any]], list[Any]]


class Batcher:
    """Answers images in batches, in one thread.

    A batch takes the images that wait when the network is free, at most `most`. If they are fewer, the first of them
    waits for more, but no longer than `wait` seconds. The number of waiting images is bounded before (`bound.Bound`).
    Images whose request is cancelled, because its client has left or its time is over, leave the queue at once.

    Args:
      answer: maps images to answers, in the same order; may take long.
      most: largest number of images in a batch.
      wait: longest wait for more images, seconds.
      batched: called with the size of each batch and the seconds of its answer.
      dropped: called with the number of images that left the queue unanswered.
    """

    def __init__(
        self,
        answer: Answer,
        most: int,
        wait: float,
        batched: Callable[[int, float], None] = lambda size, seconds: None,
        dropped: Callable[[int], None] = lambda images: None,
    ) -> None:
        self._answer, self._most, self._wait, self._batched, self._dropped = answer, most, wait, batched, dropped
        self._began, self._seconds = 0.0, 0.0  # of the batch that is being computed (0: none); of a batch, smoothed
        self._waiting: collections.deque[tuple[Any, asyncio.Future[Any]]] = collections.deque()
        self._arrived = asyncio.Event()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "jaxcnn-answers")

    @property
    def waiting(self) -> int:
        """The number of images that are not yet in a batch."""
        return len(self._waiting)

    @property
    def seconds_ahead(self) -> float:
        """The seconds for which an image that comes now will probably wait: those of the batches before its own."""
        rest = max(0.0, self._seconds - (time.perf_counter() - self._began)) if self._began else 0.0
        return rest + len(self._waiting) // self._most * self._seconds

    async def answered(self, image: Any) -> Any:
        """The answer for an image."""
        return (await self.all_answered([image]))[0]

    async def all_answered(self, images: Sequence[Any]) -> list[Any]:
        """The answers for images; an error is raised only when none of them is being computed any more.

        If the caller is cancelled, the images that are not yet in a batch leave the queue.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in images]
        self._waiting.extend(zip(images, futures, strict=True))
        self._arrived.set()
        try:
            if futures:
                await asyncio.wait(futures)
        except asyncio.CancelledError:
            await self._leave(set(futures))
            raise
        errors = [future.exception() for future in futures]  # each is asked for, or asyncio complains about it
        for error in filter(None, errors):
            raise error
        return [future.result() for future in futures]

    async def _leave(self, futures: set["asyncio.Future[Any]"]) -> None:
        """Take images out of the queue, and wait for those of them that are being computed."""
        waiting = {future for _, future in self._waiting} & futures
        self._waiting = collections.deque(each for each in self._waiting if each[1] not in waiting)
        self._dropped(len(waiting))
        if computed := futures - waiting:
            await asyncio.wait(computed)
            for future in computed:
                future.exception()

    async def run(self) -> None:
        """Answer images in batches until the task is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrive(None)
            until = loop.time() + self._wait
            while len(self._waiting) < self._most and loop.time() < until:
                await self._arrive(until - loop.time())
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            if batch:  # else all of them have left
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
        self._began = began = time.perf_counter()
        try:
            answers: list[Any] = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._answer, [image for image, _ in batch]
            )
        except Exception as error:  # each request gets the error; the server continues
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        finally:
            self._began = 0.0
        seconds = time.perf_counter() - began
        self._seconds = smoothed(self._seconds, seconds)
        self._batched(len(batch), seconds)
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
