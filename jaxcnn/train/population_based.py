"""Population-based training: members that do badly go on with the weights of ones that do well.

Jaderberg et al. 2017, arXiv:1711.09846, with truncation selection: at intervals each of the worst fifth on validation
copies weights, optimiser state and hyper-parameters of one of the best fifth (exploit), and multiplies learning rate
and weight decay by 0.8 or 1.2 (explore). It keeps its own seed, so its own examples and random draws.
"""

import dataclasses
from typing import Any

import numpy as np

FRACTION = 0.2
FACTORS = (0.8, 1.2)
KIND = "pbt"  # of the records in metrics.jsonl


@dataclasses.dataclass(frozen=True)
class Evolution:
    """How a population evolves.

    Attributes:
      every_epochs: between exchanges.
      seed: of the draws.
      names: the numbers of the trials, by member.
    """

    every_epochs: float
    seed: int
    names: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A member that goes on from the state of another, its rates multiplied."""

    member: int
    source: int
    learning_rate_factor: float
    weight_decay_factor: float


def exchanges(evolution: Evolution, step: int, accuracies: dict[int, float]) -> list[Exchange]:
    """Who goes on from whom after a step; a pure function, so that a run that is repeated evolves alike.

    Args:
      evolution: seed and names are used; draws of a member depend on its name, not on its place in the group.
      step: that all these members have done.
      accuracies: on validation at that step, by member.

    Returns:
      An exchange for each of the worst fifth (at least one) of two or more, unless the one it drew is no better.
    """
    name = evolution.names.__getitem__
    ranked = sorted(accuracies, key=lambda member: (accuracies[member], -name(member)))
    count = max(1, int(FRACTION * len(ranked))) if len(ranked) > 1 else 0
    found = []
    for member in ranked[:count]:
        generator = np.random.default_rng([evolution.seed, step, name(member)])
        source = ranked[-1 - int(generator.integers(count))]
        factors = [FACTORS[i] for i in generator.integers(2, size=2)]
        if accuracies[source] > accuracies[member]:
            found.append(Exchange(member, source, *factors))
    return found


def exchanged(exchange: Exchange, states: dict[int, Any]) -> Any:
    """The state that the member of an exchange goes on with, on the host."""
    own, source = states[exchange.member], states[exchange.source]
    hyper = dataclasses.replace(
        source.hyper,
        learning_rate=np.float32(source.hyper.learning_rate * np.float32(exchange.learning_rate_factor)),
        weight_decay=np.float32(source.hyper.weight_decay * np.float32(exchange.weight_decay_factor)),
        seed=own.hyper.seed,
    )
    return dataclasses.replace(source, hyper=hyper)
