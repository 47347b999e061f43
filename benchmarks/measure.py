"""Measure peers in turns (A B A B …), so that other load on the machine affects them equally."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any, Protocol


class Runs(Protocol):
    """The interface of what is measured, such as a `worker.Worker`."""

    def run(self, steps: int) -> float:
        """Run `steps` steps; return the seconds."""
        ...

    def steps_for(self, seconds: float) -> int:
        """The number of steps that take about `seconds`."""
        ...


@dataclasses.dataclass(frozen=True)
class Timing:
    """The times of one peer.

    Attributes:
      steps: the number of steps in a block.
      seconds_per_step: one value for each block, in the order of the rounds.
    """

    steps: int
    seconds_per_step: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the seconds per step."""
        return statistics.median(self.seconds_per_step)


def interleave(peers: Mapping[str, Runs], rounds: int, seconds: float) -> dict[str, Timing]:
    """Time all peers: in every round, one after the other runs a block of about `seconds`.

    Each block begins with a step that is not counted. A process that was stopped has lost its caches, and it must
    request the memory again that it gave back.
    """
    steps = {name: peer.steps_for(seconds) for name, peer in peers.items()}
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            peer.run(1)
            times[name].append(peer.run(steps[name]) / steps[name])
    return {name: Timing(steps[name], tuple(times[name])) for name in peers}


def speed_ratio(ours: Timing, theirs: Timing) -> dict[str, Any]:
    """The speed of `ours` relative to `theirs`: median, lowest and highest over the rounds."""
    ratios = [b / a for a, b in zip(ours.seconds_per_step, theirs.seconds_per_step, strict=True)]
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
