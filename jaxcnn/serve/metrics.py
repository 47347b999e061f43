"""Counters in the text format of Prometheus."""

import bisect
from collections import Counter
from collections.abc import Mapping

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Histogram:
    """The number of values up to each bound, with the sum and the number of all values."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value in the histogram."""
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        """The histogram as text, with labels such as `model="a"`."""
        total, lines = 0, []
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        return [*lines, f"{name}_sum{{{labels}}} {self._sum:.9g}", f"{name}_count{{{labels}}} {total}"]


class Metrics:
    """The counters of a server for one network.

    Attributes:
      responses: number of requests by the code of their answer; 499: the client left before it.
      images: number of images that were computed.
      dropped: number of images that were not, because their clients had left or their time was over.
    """

    def __init__(self) -> None:
        self.responses: Counter[int] = Counter()
        self.images = self.dropped = 0
        self.request_seconds, self.batch_seconds = Histogram(SECONDS), Histogram(SECONDS)
        self.batch_images = Histogram(SIZES)

    def batched(self, size: int, seconds: float) -> None:
        """Count a batch with its size and its seconds."""
        self.images += size
        self.batch_images.observe(size)
        self.batch_seconds.observe(seconds)

    def left(self, images: int) -> None:
        """Count images that are not computed."""
        self.dropped += images


def text(metrics: Mapping[str, Metrics], gauges: Mapping[str, Mapping[str, int] | int]) -> str:
    """The counters by the name of the network, and gauges (numbers, or numbers by the name of the network), as text."""
    lines = ["# TYPE jaxcnn_responses_total counter"]
    for model, each in metrics.items():
        lines += [
            f'jaxcnn_responses_total{{model="{model}",code="{code}"}} {count}'
            for code, count in sorted(each.responses.items())
        ]
    lines += ["# TYPE jaxcnn_images_total counter"]
    lines += [f'jaxcnn_images_total{{model="{model}"}} {each.images}' for model, each in metrics.items()]
    lines += ["# TYPE jaxcnn_images_dropped_total counter"]
    lines += [f'jaxcnn_images_dropped_total{{model="{model}"}} {each.dropped}' for model, each in metrics.items()]
    for name, value in gauges.items():
        lines.append(f"# TYPE {name} gauge")
        if isinstance(value, int):
            lines.append(f"{name} {value}")
        else:
            lines += [f'{name}{{model="{model}"}} {each}' for model, each in value.items()]
    for name in ("request_seconds", "batch_seconds", "batch_images"):
        lines.append(f"# TYPE jaxcnn_{name} histogram")
        for model, each in metrics.items():
            histogram: Histogram = getattr(each, name)
            lines += histogram.lines(f"jaxcnn_{name}", f'model="{model}"')
    return "\n".join(lines) + "\n"
