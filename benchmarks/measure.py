"""Measuring peers in turns: A B A B …, so that whatever else the machine does meets them alike."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any, Protocol


class Runs(Protocol):
    """What is measured: a `worker.Worker`, say."""

    def run(self, steps: int) -> float:
        """Seconds for so many steps."""
        ...

    def steps_for(self, seconds: float) -> int:
        """How many steps take about so long."""
        ...


@dataclasses.dataclass(frozen=True)
class Timing:
    """Blocks of steps of one peer.

    Attributes:
      steps: in a block.
      seconds_per_step: of each block, in the order of the rounds.
    """

    steps: int
    seconds_per_step: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds per step."""
        return statistics.median(self.seconds_per_step)


def interleave(peers: Mapping[str, Runs], rounds: int, seconds: float) -> dict[str, Timing]:
    """Time all peers: in every round each runs a block of about so many seconds, one peer after the other.

    Each begins with a step that is not counted, since a process that stood still has lost its caches, and memory that
    it gave back must be taken anew.
    """
    steps = {name: peer.steps_for(seconds) for name, peer in peers.items()}
    times: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            peer.run(1)
            times[name].append(peer.run(steps[name]) / steps[name])
    return {name: Timing(steps[name], tuple(times[name])) for name in peers}


def speed_ratio(ours: Timing, theirs: Timing) -> dict[str, Any]:
    """How many times faster `ours` is: the median over the rounds, the lowest and the highest."""
    ratios = [b / a for a, b in zip(ours.seconds_per_step, theirs.seconds_per_step, strict=True)]
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
