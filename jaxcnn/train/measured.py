"""The figures of a split with the weights of a run, at every validation and at the end of the run."""

from typing import Any

from jaxcnn.data.batch import Split
from jaxcnn.data.selection import groups_of
from jaxcnn.learn.state import State
from jaxcnn.tasks.by_group import grouped
from jaxcnn.tasks.task import Collector
from jaxcnn.train import fitted, loaders
from jaxcnn.train.evaluate import evaluate
from jaxcnn.train.session import Session

OF_GROUPS = ("groups", "per_group")  # the figures that `Grouped` adds


def figures(
    session: Session, split: Split, state: State, tta: str = "none", collector: Collector | None = None
) -> dict[str, Any]:
    """Loss and metrics of a split; those of the moving average, if the run keeps one, are named ema_….

    Those with test-time augmentation, if any, are named tta_… and ema_tta_…. The outputs of the weights behind the
    headline figure are added to `collector`.
    """
    values = _measure(session, split, state.variables(), tta, collector if state.ema is None else None)
    if state.ema is not None:
        averaged = _measure(session, split, state.ema, tta, collector)
        values |= {f"ema_{name}": value for name, value in averaged.items() if name != "examples"}
    return values


def recorded(session: Session, figures: dict[str, Any]) -> dict[str, Any]:
    """The figures of a collector that go into `metrics.jsonl`, with the name prefix of their weights."""
    prefix = "" if session.state.ema is None else "ema_"
    return {f"{prefix}{name}": value for name, value in session.spec.task.evaluation.recorded(figures).items()}


def _measure(
    session: Session, split: Split, variables: Any, tta: str = "none", collector: Collector | None = None
) -> dict[str, float]:
    """The results of `evaluate` with the loader of the run."""
    batch_size = loaders.eval_batch_size(session.config.run.eval_batch_size, session.spec, session.mesh)
    check, share = session.interrupts.check, session.config.run.tta_share
    return evaluate(session.loader, split, variables, session.constants, batch_size, check, tta, collector, share)


def fit(session: Session, state: State, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit what the task fits to the validation split, such as thresholds, with the weights that will be tested.

    Returns what was fitted, and the figures of the groups of the validation split, if it has groups.
    """
    if (split := session.splits.val) is None:
        return {}, {}
    task, constants, groups = session.spec.task, session.constants, groups_of(split)
    collector = grouped(task.evaluation.collector(constants), task, constants, groups, session.config.data.group)
    _measure(session, split, state.variables() if state.ema is None else state.ema, collector=collector)
    found = collector.fitted()
    if found and session.cluster.first:
        fitted.write(session.folder, found, step, "last" if state.ema is None else "ema")
    if groups is None:
        return found, {}
    of_split = collector.figures(split.class_names, found)
    return found, {f"val_{name}": of_split[name] for name in OF_GROUPS}
