"""The bound on the images that are processed at once, in all requests and for all networks of a server."""

import asyncio
import contextlib
import math
from collections.abc import Iterator

SMOOTHING = 0.9  # weight of the old average of seconds


def smoothed(old: float, new: float) -> float:
    """The moving average of seconds after a new value; `old` is 0 before the first."""
    return SMOOTHING * old + (1 - SMOOTHING) * new if old else new


class Busy(Exception):
    """Raised when no more images are admitted now; try again after `seconds`."""

    def __init__(self, seconds: int, why: str) -> None:
        super().__init__(why)
        self.seconds = seconds


class Bound:
    """Admits at most `limit` images at once, from before they are read to their answers, which bounds the memory.

    Attributes:
      under_way: images admitted now, or places that the bytes of requests take (`Held.at_least`).
      largest: the most images admitted at once since the start.
      requests: requests to which they belong.
      draining: whether no more requests are admitted.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.under_way = self.largest = self.requests = 0
        self.draining = False
        self._seconds_per_image = 0.0

    @contextlib.contextmanager
    def admitted(self) -> Iterator["Held"]:
        """Admit one request, with one place, while the body of this context runs.

        Raises:
          Busy: all places are taken, or the server is about to stop.
        """
        if self.draining:
            raise Busy(1, "the server is stopping")
        held = Held(self)
        held.at_least(1)
        self.requests += 1
        try:
            yield held
        finally:
            self.requests -= 1
            self.under_way -= held.places

    def retry_after(self) -> int:
        """The seconds, at least 1, in which the images admitted now will probably be answered."""
        return max(1, math.ceil(self.under_way * self._seconds_per_image))

    def answered(self, images: int, seconds: float) -> None:
        """Learn from the seconds that some images took."""
        self._seconds_per_image = smoothed(self._seconds_per_image, seconds / images)

    async def drain(self) -> None:
        """Admit nothing more, and wait until all admitted requests are answered."""
        self.draining = True
        while self.under_way:
            await asyncio.sleep(0.01)


class Held:
    """The places of one request."""

    def __init__(self, bound: Bound) -> None:
        self._bound, self.places = bound, 0

    def at_least(self, places: int) -> None:
        """Take `places` places in total.

        Raises:
          Busy: too few are free.
        """
        bound, more = self._bound, places - self.places
        if more <= 0:
            return
        if bound.under_way + more > bound.limit:
            raise Busy(bound.retry_after(), f"{bound.under_way} of {bound.limit} images are under way")
        bound.under_way += more
        bound.largest = max(bound.largest, bound.under_way)
        self.places = places
