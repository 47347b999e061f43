"""How many images are under way at once, in all requests and for all networks of a server."""

import asyncio
import contextlib
import math
from collections.abc import Iterator

SMOOTHING = 0.9  # weight of the old average of seconds per image


class Busy(Exception):
    """No more images are admitted now; try again after `seconds`."""

    def __init__(self, seconds: int, why: str) -> None:
        super().__init__(why)
        self.seconds = seconds


class Bound:
    """At most `limit` images are under way, from before they are read to their answers, which bounds the memory.

    Attributes:
      under_way: images, or places that bytes of a request take (`Held.at_least`).
      largest: that were under way at once since the start.
      requests: that they belong to.
      draining: nothing more is admitted.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.under_way = self.largest = self.requests = 0
        self.draining = False
        self._seconds_per_image = 0.0

    @contextlib.contextmanager
    def admitted(self) -> Iterator["Held"]:
        """One request under way, with one place.

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
        """Seconds in which the images that are under way will probably be answered; at least 1."""
        return max(1, math.ceil(self.under_way * self._seconds_per_image))

    def answered(self, images: int, seconds: float) -> None:
        """Learn how long images take."""
        each, old = seconds / images, self._seconds_per_image
        self._seconds_per_image = SMOOTHING * old + (1 - SMOOTHING) * each if old else each

    async def drain(self) -> None:
        """Admit nothing more, and wait for what is under way."""
        self.draining = True
        while self.under_way:
            await asyncio.sleep(0.01)


class Held:
    """The places of one request."""

    def __init__(self, bound: Bound) -> None:
        self._bound, self.places = bound, 0

    def at_least(self, places: int) -> None:
        """Take so many places altogether. Raises Busy if there are not so many."""
        bound, more = self._bound, places - self.places
        if more <= 0:
            return
        if bound.under_way + more > bound.limit:
            raise Busy(bound.retry_after(), f"{bound.under_way} of {bound.limit} images are under way")
        bound.under_way += more
        bound.largest = max(bound.largest, bound.under_way)
        self.places = places
