"""Counters in the text format of Prometheus."""

import bisect
from collections import Counter

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Histogram:
    """How many values are at most each bound, their sum and their count."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> list[str]:
        """The histogram as text."""
        total, lines = 0, []
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self._sum:.9g}", f"{name}_count {total}"]


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        self.responses: Counter[int] = Counter()
        self.request_seconds, self.batch_seconds = Histogram(SECONDS), Histogram(SECONDS)
        self.batch_images = Histogram(SIZES)

    def batched(self, size: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_images.observe(size)
        self.batch_seconds.observe(seconds)

    def text(self, under_way: int) -> str:
        """All of it, with the number of requests that are under way."""
        lines = ["# TYPE jaxcnn_responses_total counter"]
        lines += [f'jaxcnn_responses_total{{code="{code}"}} {n}' for code, n in sorted(self.responses.items())]
        lines += ["# TYPE jaxcnn_requests_under_way gauge", f"jaxcnn_requests_under_way {under_way}"]
        for name, histogram in (
            ("jaxcnn_request_seconds", self.request_seconds),
            ("jaxcnn_batch_seconds", self.batch_seconds),
            ("jaxcnn_batch_images", self.batch_images),
        ):
            lines += [f"# TYPE {name} histogram", *histogram.lines(name)]
        return "\n".join(lines) + "\n"
