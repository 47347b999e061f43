"""The final figures of a run, computed from its session."""

import functools
from typing import Any

from jaxcnn.learn import executables, programs, prune, tta
from jaxcnn.learn.state import count_parameters
from jaxcnn.machine.mesh import describe
from jaxcnn.train import flops, summary
from jaxcnn.train.session import Session


def of(session: Session, test: dict[str, Any] | None, test_seconds: float) -> dict[str, Any]:
    """The summary of a finished run; seconds are sums over all its starts, except `test_seconds`, of the one test."""
    config, spec, progress = session.config, session.spec, session.progress
    rate = progress.images / max(progress.train_seconds, 1e-9)
    figure, best = spec.task.evaluation.headline, progress.best_score
    validated = session.splits.val is not None
    figures = {
        "model": config.model.name,
        "data": session.splits.train.description,
        "protocol": config.data.protocol,
        "seed": config.seed,
        "parameters": count_parameters(session.state.params),
        "steps": session.step,
        "epochs": session.step / spec.steps_per_epoch,
        "stopped_early": session.step < spec.total_steps,
        "global_batch_size": spec.global_batch_size,
        "device": describe(session.mesh),
        "dtype": config.model.dtype,
        "loader": session.loader.kind,
        "headline": summary.headline(config, figure),
        "headline_kind": {"label": figure.label, "better": figure.better, "percent": figure.percent},
        "tta": tta.described(config.run.tta, config.run.tta_share),
        "test": test,
        "earlier_tests": summary.earlier_tests(session.folder),
        "val_best": {figure.key: None if best is None else figure.value(best), "step": progress.best_step}
        if validated
        else None,
        "val_last": figure.value(progress.score) if validated else None,
        "images_per_second": rate,
        "images_per_second_excludes": "start-up, compilation, evaluation, saving",
        "time_to_first_step_seconds": session.time_to_first_step,
        "compile_seconds": progress.compile_seconds,
        "reset_seconds": progress.reset_seconds,
        "train_seconds": progress.train_seconds,
        "eval_seconds": progress.eval_seconds,
        "test_seconds": test_seconds,
        "wall_seconds": progress.wall_seconds,
        "starts": progress.starts,
    }
    if spec.prune.is_on:
        zeros, weights = (sum(numbers) for numbers in zip(*prune.counts(session.state.params).values(), strict=True))
        figures |= {"sparsity": zeros / weights}  # of all kernels, also those that are never pruned
        figures |= {"live_parameters": figures["parameters"] - zeros}
    return figures | _utilisation(session, rate)


def _utilisation(session: Session, rate: float) -> dict[str, float | None]:
    """How much of each device the steps used on average: FLOP/s and bytes/s, and their shares of its peaks."""
    spec = session.spec
    costs = [_cost(made, session.mesh, session.loader.kind, session.steps_per_call) for _, made in spec.stages]
    *moved, working = zip(*costs, strict=True)
    mean_flops, mean_bytes = (None if None in of_step else spec.mean_step(of_step) for of_step in moved)
    per_image = None if mean_flops is None else mean_flops * session.mesh.size / spec.global_batch_size
    most = max((each for each in working if each is not None), default=None)
    return {"training_flops_per_image": per_image, "training_working_bytes": most} | flops.utilisation(
        session.config,
        session.mesh.devices.flat[0].device_kind,
        rate / spec.global_batch_size,
        mean_flops,
        mean_bytes,
    )


@functools.lru_cache(maxsize=16)  # runs in one process that share a program share this too
def _cost(*step: Any) -> list[float | None]:
    """FLOPs of a step, bytes that it moves and that it works with, for the arguments of `programs.train_step`."""
    return executables.kept_figures(_computed_cost, *step)


def _computed_cost(*step: Any) -> list[float | None]:
    # A step whose program was kept by an earlier process was not traced yet; it is traced here, for its FLOPs.
    working = flops.working_bytes(programs.train_step(*step))
    return [flops.of_program(*step), flops.bytes_of_program(*step), working]
