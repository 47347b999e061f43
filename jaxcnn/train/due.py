"""The steps after which a run is evaluated and saved."""

import dataclasses

from jaxcnn.config import Config
from jaxcnn.learn.step_spec import StepSpec, steps_of


@dataclasses.dataclass(frozen=True)
class Due:
    """The steps after which a run is evaluated on validation, and those after which it is saved."""

    evaluate: frozenset[int]
    save: frozenset[int]

    def since(self, best: int, last: int) -> int:
        """The evaluations after step `best`, up to step `last`."""
        return sum(best < step <= last for step in self.evaluate)

    @property
    def steps(self) -> list[int]:
        """The steps at which something is due, in order; the last one ends the run."""
        return sorted(self.evaluate | self.save)


def due_steps(spec: StepSpec, config: Config, *, validates: bool) -> Due:
    """The due steps of a run, from its config."""
    steps_per_epoch, total = spec.steps_per_epoch, spec.total_steps
    eval_steps = rhythm(config.run.eval_every_epochs, steps_per_epoch, total) if validates else frozenset()
    if every := config.checkpoint.every_steps:
        save_steps = frozenset(range(every, total, every)) | {total}
    else:
        save_steps = rhythm(config.checkpoint.every_epochs, steps_per_epoch, total)
    if every := config.checkpoint.keep_every_steps:
        save_steps |= frozenset(range(every, total, every))
    return Due(eval_steps, save_steps)


def rhythm(every_epochs: float, steps_per_epoch: float, total: int) -> frozenset[int]:
    """The step at the end of each interval of `every_epochs`, and the last step; with 0, the last step alone."""
    if not every_epochs:
        return frozenset({total})
    count = int(min(total, total / (every_epochs * steps_per_epoch))) + 1  # as an interval has at least one step
    return frozenset(s for n in range(1, count + 1) if (s := steps_of(every_epochs, steps_per_epoch, n)) < total) | {
        total
    }
