"""A trial that a worker has taken."""

import dataclasses
import enum

from optuna.trial import FrozenTrial

from jaxcnn.study import folder as files
from jaxcnn.study import spec


class Nothing(enum.Enum):
    """The reason why no trial can be taken."""

    WAIT = "other trials are running, and may return to the queue"
    DONE = "all trials have ended"


@dataclasses.dataclass
class Lease:
    """A trial that this worker has taken.

    Attributes:
      trial: the trial as it was in the store when taken.
      number: number of its folder and row; a retried trial keeps that of the first attempt.
      overrides: overrides of the config, without the seed.
      seed: seed of the run.
      program: key of the compiled program, equal for trials that share it; empty if unknown.
      resumed: whether the trial was started before.
      first: the ended trial that this one repeats, and whose outcome it takes over; None: it must be trained.
      lock: lock on its folder.
      parent: number of the trial whose weights it starts from; None: none.
    """

    trial: FrozenTrial
    number: int
    overrides: spec.Overrides
    seed: int
    program: str
    resumed: bool
    lock: files.Lock
    first: FrozenTrial | None = None
    parent: int | None = None

    @property
    def id(self) -> int:
        """The trial's id in the store."""
        return self.trial._trial_id
