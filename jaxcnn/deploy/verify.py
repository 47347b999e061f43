"""Whether an exported file answers as the run that it was made of, on a split."""

import dataclasses
import time
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxcnn.data.batch import Split
from jaxcnn.deploy.runtimes import Runtime
from jaxcnn.learn import programs
from jaxcnn.train.trained import Trained

WARM_UP, CALLS = 3, 30  # of one image, for the latency


@dataclasses.dataclass(frozen=True)
class Verdict:
    """An exported file beside its run.

    Attributes:
      runtime: what ran it.
      examples: of the split.
      difference: the largest of a logit.
      scale: the standard deviation of the run's logits, beside which the difference is small or not.
      agreement: the share of examples with the same largest logit.
      figures: (name, of the run, of the file): the mean loss and metrics.
      size: bytes of the file.
      latency: the median of one image in the file's runtime, seconds.
      beside: (bytes, latency) of the same network in a file of float32, timed in turns with this one, if there is one.
    """

    runtime: str
    examples: int
    difference: float
    scale: float
    agreement: float
    figures: list[tuple[str, float, float]]
    size: int
    latency: float
    beside: tuple[int, float] | None = None

    def lines(self) -> list[str]:
        """The verdict for a person."""
        figures = [f"  {name}: {run:.6g} in the run, {file:.6g} in the file" for name, run, file in self.figures]
        return [
            f"verified in {self.runtime} on {self.examples} examples:",
            f"  largest difference of a logit {self.difference:.3g} (their standard deviation is {self.scale:.3g}); "
            f"the same largest logit for {100 * self.agreement:.2f}%",
            *figures,
            f"  {self.size:,} bytes; one image takes {1000 * self.latency:.2f} ms (median of {CALLS})",
            *self._beside(),
        ]

    def _beside(self) -> list[str]:
        if self.beside is None:
            return []
        size, latency = self.beside
        return [
            f"  beside float32: {size:,} bytes, {1000 * latency:.2f} ms; this file is {size / self.size:.2f} times "
            f"smaller, and {latency / self.latency:.2f} times as fast"
        ]


def verify(
    network: Trained, runtime: Runtime, split: Split, batch_size: int, float32: Runtime | None = None
) -> Verdict:
    """Run a file on a split, in its own runtime, beside the run in JAX, and time it beside one of `float32`."""
    outputs = network.outputs(split, batch_size)
    found = np.concatenate(
        [
            runtime.call(np.asarray(split.read(np.arange(start, min(start + batch_size, len(split))))))
            for start in range(0, len(split), batch_size)
        ]
    )
    of_run, of_file = (_means(network, split, each) for each in (outputs, found))
    image = np.asarray(split.read(np.arange(1)))
    timed = [runtime] if float32 is None else [runtime, float32]
    seconds = np.zeros((WARM_UP + CALLS, len(timed)))
    for row in seconds:
        for i, each in enumerate(timed):
            began = time.perf_counter()
            each.call(image)
            row[i] = time.perf_counter() - began
    latency, *others = map(float, np.median(seconds[WARM_UP:], axis=0))
    return Verdict(
        runtime=runtime.name,
        examples=len(split),
        difference=float(np.abs(outputs - found).max()),
        scale=float(outputs.std()),
        agreement=float(np.mean(outputs.argmax(axis=1) == found.argmax(axis=1))),
        figures=[(name, of_run[name], of_file[name]) for name in of_run],
        size=runtime.size,
        latency=latency,
        beside=None if float32 is None else (float32.size, others[0]),
    )


def _means(network: Trained, split: Split, outputs: Float[np.ndarray, "n k"]) -> dict[str, float]:
    of_each: dict[str, Any] = programs.loss_of_each(
        network.spec, network.mesh, np.asarray(outputs, np.float32), split.targets, network.constants
    )
    return {name: float(np.mean(values)) for name, values in of_each.items()}
