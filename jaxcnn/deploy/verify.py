"""Whether an exported file answers as the run that it was made of, on a split."""

import dataclasses
import time
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxcnn.data.batch import Split
from jaxcnn.deploy.runtimes import Runtime
from jaxcnn.learn import programs
from jaxcnn.tasks.task import Task
from jaxcnn.train.trained import Trained

WARM_UP, CALLS = 3, 30  # of one image, for the latency


@runtime_checkable
class Agreeing(Protocol):
    """An evaluation that finds, of which two results can be compared."""

    def agreement(self, found: np.ndarray, other: np.ndarray) -> float:
        """The share of what is found in a batch that is also found in `other`, from 0 to 1; both as from `found`."""
        ...


@dataclasses.dataclass(frozen=True)
class Verdict:
    """An exported file beside its run.

    Attributes:
      runtime: what ran it.
      examples: of the split.
      difference: the largest of a logit; None of a task that finds.
      scale: the standard deviation of the run's logits, beside which the difference is small or not; None likewise.
      agreement: the share of examples with the same largest logit, or of what the run finds that the file finds, too;
        None if the task cannot tell.
      figures: (name, of the run, of the file): the mean loss and metrics, or the recorded figures of a task that finds.
      size: bytes of the file.
      latency: the median of one image in the file's runtime, seconds.
      beside: (bytes, latency) of the same network in a file of float32, timed in turns with this one, if there is one.
    """

    runtime: str
    examples: int
    difference: float | None
    scale: float | None
    agreement: float | None
    figures: list[tuple[str, float, float]]
    size: int
    latency: float
    beside: tuple[int, float] | None = None

    def lines(self) -> list[str]:
        """The verdict for a person."""
        figures = [f"  {name}: {run:.6g} in the run, {file:.6g} in the file" for name, run, file in self.figures]
        return [
            f"verified in {self.runtime} on {self.examples} examples:",
            *self._alike(),
            *figures,
            f"  {self.size:,} bytes; one image takes {1000 * self.latency:.2f} ms (median of {CALLS})",
            *self._beside(),
        ]

    def _alike(self) -> list[str]:
        share = None if self.agreement is None else f"{100 * self.agreement:.2f}%"
        if self.difference is not None:
            logits = f"a logit {self.difference:.3g} (their standard deviation is {self.scale:.3g})"
            return [f"  largest difference of {logits}; the same largest logit for {share}"]
        return [] if share is None else [f"  {share} of what the run is sure to find, the file finds, too"]

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
    of_run, of_file = (_figures(network, split, each) for each in (outputs, found))
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
        **_alike(network.spec.task, outputs, found),
        figures=[(name, of_run[name], of_file[name]) for name in of_run if name in of_file],
        size=runtime.size,
        latency=latency,
        beside=None if float32 is None else (float32.size, others[0]),
    )


def _alike(task: Task, outputs: np.ndarray, found: np.ndarray) -> dict[str, float | None]:
    """How far the outputs of the run and of the file agree, or what was found among them."""
    if task.finds is not None:
        share = task.finds.agreement(outputs, found) if isinstance(task.finds, Agreeing) else None
        return {"difference": None, "scale": None, "agreement": share}
    return {
        "difference": float(np.abs(outputs - found).max()),
        "scale": float(outputs.std()),
        "agreement": float(np.mean(outputs.argmax(axis=1) == found.argmax(axis=1))),
    }


def _figures(network: Trained, split: Split, outputs: np.ndarray) -> dict[str, float]:
    """The mean loss and metrics of outputs; of a task that finds, the figures that a validation records."""
    task = network.spec.task
    if task.finds is not None:
        collector = task.evaluation.collector(network.constants)
        collector.add(outputs, split.targets)
        return task.evaluation.recorded(collector.figures(network.class_names, network.fitted))
    of_each: dict[str, Any] = programs.loss_of_each(
        network.spec, network.mesh, np.asarray(outputs, np.float32), split.targets, network.constants
    )
    return {name: float(np.mean(values)) for name, values in of_each.items()}
