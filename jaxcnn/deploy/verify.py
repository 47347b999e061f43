"""Whether an exported file answers as the run that it was made of, on a split."""

import dataclasses
import time
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxcnn.data.batch import Split
from jaxcnn.data.selection import whole_targets
from jaxcnn.deploy.runtimes import Runtime
from jaxcnn.learn import programs
from jaxcnn.train.trained import Trained

ALIKE = {"label": "the same largest logit", "labels": "the same labels"}  # keyed by a field of the answer
NUMBERS = "values"  # the field of a regression's answer
WARM_UP, CALLS = 3, 30  # of one image, for the latency


@runtime_checkable
class Agreeing(Protocol):
    """An evaluation of a task that finds objects; it can compare two sets of found objects."""

    def agreement(self, found: np.ndarray, other: np.ndarray) -> float:
        """The share of the objects found in a batch that are also in `other`, from 0 to 1; both are from `found`."""
        ...


@dataclasses.dataclass(frozen=True)
class Verdict:
    """An exported file beside its run.

    Attributes:
      runtime: name of the runtime that ran it.
      examples: number of examples in the split.
      difference: the largest difference of an output (of a regression: of a number, in its units); None for a task
        that finds objects.
      scale: the standard deviation of the run's outputs, to judge `difference` by; None for a task that finds objects.
      agreement: the share of examples with the same answer (`ALIKE`), or of what the run finds that the file finds,
        too; None if the task cannot tell.
      figures: (name, of the run, of the file): the mean loss and metrics, or the recorded figures of a task that finds.
      size: bytes of the file.
      latency: the median of one image in the file's runtime, seconds.
      beside: (bytes, latency) of the same network in a file of float32, timed in turns with this one, if there is one.
      same: what is the same of these examples, in words.
      r2: R² of the file's numbers with those of the run as the truth, for a regression; the smallest if it has several.
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
    same: str = ""
    r2: float | None = None

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
            what = "a logit" if self.r2 is None else "a number"
            line = (
                f"  largest difference of {what} {self.difference:.3g} (their standard deviation is {self.scale:.3g})"
            )
            if self.r2 is not None:
                return [f"{line}; R² against the run {self.r2:.6f}"]
            return [line if share is None else f"{line}; {self.same} for {share}"]
        return [] if share is None else [f"  {share} of what the run is sure to find, the file finds, too"]

    def _beside(self) -> list[str]:
        if self.beside is None:
            return []
        size, latency = self.beside
        speed = latency / self.latency
        slower = ": on this machine it is slower than float32" if round(speed, 2) < 1 else ""
        return [
            f"  beside float32: {size:,} bytes, {1000 * latency:.2f} ms; this file is {size / self.size:.2f} times "
            f"smaller, and {speed:.2f} times as fast{slower}"
        ]


def verify(
    network: Trained, runtime: Runtime, split: Split, batch_size: int, float32: Runtime | None = None
) -> Verdict:
    """Run an exported file on a split in its own runtime, and compare its answers with those of the run in JAX.

    With `float32`, a file of the same network in float32, the two are timed in turns.
    """
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
        **_alike(network, outputs, found),
        figures=[(name, of_run[name], of_file[name]) for name in of_run if name in of_file],
        size=runtime.size,
        latency=latency,
        beside=None if float32 is None else (float32.size, others[0]),
    )


def _alike(network: Trained, outputs: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    """How far the outputs of the run and of the file agree, or what was found among them."""
    task = network.spec.task
    if task.finds is not None:
        share = task.finds.agreement(outputs, found) if isinstance(task.finds, Agreeing) else None
        return {"difference": None, "scale": None, "agreement": share}
    of_run, of_file = (
        task.evaluation.answers(each, network.class_names, network.constants, network.fitted)
        for each in (outputs, found)
    )
    if NUMBERS in of_run[0]:
        numbers, others = (np.array([[*each[NUMBERS].values()] for each in answers]) for answers in (of_run, of_file))
        return _measured(numbers, others) | {"agreement": None, "r2": r_squared(others, numbers)}
    kind = next((name for name in ALIKE if name in of_run[0]), None)
    same = None if kind is None else np.mean([a[kind] == b[kind] for a, b in zip(of_run, of_file, strict=True)])
    told = {} if same is None else {"agreement": float(same), "same": ALIKE[kind or ""]}
    return _measured(outputs, found) | ({"agreement": None} | told)


def _measured(outputs: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    return {"difference": float(np.abs(outputs - found).max()), "scale": float(outputs.std())}


def r_squared(found: np.ndarray, truth: np.ndarray) -> float:
    """The smallest R² of numbers [n, k] of several kinds; of a kind whose true ones are all equal, 1 or -infinity."""
    error, spread = np.square(found - truth).sum(axis=0), np.square(truth - truth.mean(axis=0)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(error == 0, 1.0, 1.0 - error / spread).min())


def _figures(network: Trained, split: Split, outputs: np.ndarray) -> dict[str, float]:
    """The mean loss and metrics of outputs; of a task that finds, the figures that a validation records."""
    task = network.spec.task
    if task.finds is not None:
        collector = task.evaluation.collector(network.constants)
        collector.add(outputs, whole_targets(split, split.targets, np.arange(len(split))))
        return task.evaluation.recorded(collector.figures(network.class_names, network.fitted))
    of_each: dict[str, Any] = programs.loss_of_each(
        network.spec, network.mesh, np.asarray(outputs, np.float32), split.targets, network.constants
    )
    return {name: float(np.mean(values)) for name, values in of_each.items()}
