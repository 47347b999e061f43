"""Population-based training: bad members continue from the weights of good ones.

Jaderberg et al. 2017, arXiv:1711.09846, with truncation selection: at intervals, each of the worst fifth on validation
copies weights, optimiser state and hyper-parameters of one of the best fifth (exploit), and multiplies learning rate
and weight decay by 0.8 or 1.2 (explore). It keeps its own seed, and so its own examples and random draws.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxcnn.tasks.headline import Headline

FRACTION = 0.2
FACTORS = (0.8, 1.2)
KIND = "pbt"  # kind of the records in metrics.jsonl


@dataclasses.dataclass(frozen=True)
class Evolution:
    """The settings by which a population evolves.

    Attributes:
      every_epochs: epochs between exchanges.
      seed: seed of the random draws.
      names: number of the trial of each member.
    """

    every_epochs: float
    seed: int
    names: dict[int, int]


@dataclasses.dataclass(frozen=True)
class Exchange:
    """An exchange: a member continues from the state of `source`, with learning rate and weight decay multiplied."""

    member: int
    source: int
    learning_rate_factor: float
    weight_decay_factor: float


def exchanges(evolution: Evolution, step: int, scores: dict[int, float]) -> list[Exchange]:
    """The exchanges after a step; a pure function, so a repeated run evolves in the same way.

    Args:
      evolution: only seed and names are used; a member's draws depend on its name, not on its place in the group.
      step: the step that all these members have done.
      scores: score on validation at that step, by member.

    Returns:
      An exchange for each of the worst fifth (at least one) of two or more members, unless the source that it drew is
      no better.
    """
    name = evolution.names.__getitem__
    scores = {member: Headline.rank(score) for member, score in scores.items()}
    ranked = sorted(scores, key=lambda member: (scores[member], -name(member)))
    count = max(1, int(FRACTION * len(ranked))) if len(ranked) > 1 else 0
    found = []
    for member in ranked[:count]:
        generator = np.random.default_rng([evolution.seed, step, name(member)])
        source = ranked[-1 - int(generator.integers(count))]
        factors = [FACTORS[i] for i in generator.integers(2, size=2)]
        if scores[source] > scores[member]:
            found.append(Exchange(member, source, *factors))
    return found


def exchanged(exchange: Exchange, states: dict[int, Any]) -> Any:
    """The state from which the member of an exchange continues, on the host."""
    own, source = states[exchange.member], states[exchange.source]
    hyper = dataclasses.replace(
        source.hyper,
        learning_rate=np.float32(source.hyper.learning_rate * np.float32(exchange.learning_rate_factor)),
        weight_decay=np.float32(source.hyper.weight_decay * np.float32(exchange.weight_decay_factor)),
        seed=own.hyper.seed,
    )
    return dataclasses.replace(source, hyper=hyper)
