"""Small studies on the digits, in this process."""

import contextlib
import dataclasses
import json
import pathlib

from jaxcnn.study import folder as files
from jaxcnn.study import plan as plans
from jaxcnn.study import spec, start, store, trial, worker
from jaxcnn.train.hooks import Shared
from tests import digits, small

RATES = (0.02, 0.05, 0.1, 0.2)


@dataclasses.dataclass
class Study:
    """A study that is ready to run."""

    folder: pathlib.Path
    definition: files.Definition
    url: str
    plan: plans.Plan
    ended: list = dataclasses.field(default_factory=list)

    def storage(self):
        return store.open_storage(self.url, self.definition.heartbeat)

    def queue(self):
        return start.open_queue(self.folder, self.definition, self.storage(), self.plan)

    def work(self, most: int = 10**6, shared: Shared | None = None) -> list[trial.Outcome]:
        """Run at most `most` trials in this process; return their outcomes."""
        outcomes = []

        def ended(lease, outcome):
            outcomes.append(outcome)
            if len(outcomes) == most:
                raise StopIteration

        with small.programs_kept(), contextlib.suppress(StopIteration):
            worker.work(self.folder, self.definition, self.storage(), ["test"], shared=shared, ended=ended)
        return outcomes

    def trials(self) -> list[dict]:
        """Every `trial.json`, by number."""
        folders = sorted((self.folder / files.TRIALS).iterdir())
        return [json.loads((each / files.TRIAL).read_text()) for each in folders if (each / files.TRIAL).exists()]


def tell(study: Study, count: int, figures: list[float]) -> list[str]:
    """Take trials, and tell the store these headline figures of their validations instead of training; their states."""
    queue, states = study.queue(), []
    for _ in range(count):
        lease = queue.take()
        pruned = any(queue.report(lease, number, figure) for number, figure in enumerate(figures, start=1))
        states.append("pruned" if pruned else "complete")
        assert queue.finish(lease, states[-1], dict.fromkeys(study.definition.directions, figures[-1]), None)
        lease.lock.release()
    return states


def make(
    folder: pathlib.Path,
    sweep: spec.Sweep,
    *,
    sampler: str = "",
    trials: int = 0,
    pruner: str = "none",
    heartbeat: int = 60,
    url: str = "",
    **groups,
) -> Study:
    """A study over `digits.config(**groups)`."""
    base = digits.config(**groups)
    spec.check(sweep, base)
    plan = plans.make(sweep, base, sampler, trials, Shared())
    folder.mkdir(parents=True, exist_ok=True)
    url = url or start.default_url(folder)
    definition = start.define("test", sweep, base, plan, start.storage_name(folder, url), pruner, heartbeat)
    storage = store.open_storage(url, heartbeat)
    start.begin(folder, definition, storage, plan, sweep, ["test"], config_file="test.py", environment={})
    return Study(folder, files.read_definition(folder), url, plan)
