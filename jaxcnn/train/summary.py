"""The final figures of a run, in `summary.json` and in one line."""

import functools
import pathlib
from typing import TYPE_CHECKING, Any

from jaxcnn.config import Config
from jaxcnn.learn import executables
from jaxcnn.learn.state import count_parameters
from jaxcnn.mesh import describe
from jaxcnn.text import counted
from jaxcnn.train import flops, workdir

if TYPE_CHECKING:
    from jaxcnn.train.session import Session

FILE = "summary.json"


def headline(config: Config) -> str:
    """The figure that decisions look at: of the moving average where the run keeps one."""
    return "ema_top1_accuracy" if config.optim.ema_decay else "top1_accuracy"


def make(session: "Session", test: dict[str, Any] | None, test_seconds: float) -> dict[str, Any]:
    """The summary of a finished run; seconds are sums over all its starts, but for those of the one test."""
    config, program, progress = session.config, session.program, session.progress
    rate = progress.images / max(progress.train_seconds, 1e-9)
    figures = {
        "model": config.model.name,
        "data": session.splits.train.description,
        "protocol": config.data.protocol,
        "seed": config.seed,
        "parameters": count_parameters(session.state.params),
        "steps": session.step,
        "epochs": session.step / program.steps_per_epoch,
        "global_batch_size": program.global_batch_size,
        "device": describe(session.mesh),
        "dtype": config.model.dtype,
        "loader": session.feed.loader,
        "headline": headline(config),
        "tta": config.run.tta,
        "test": test,
        "val_best": {"accuracy": progress.best_accuracy, "step": progress.best_step} if session.splits.val else None,
        "val_last": progress.accuracy if session.splits.val else None,
        "images_per_second": rate,
        "images_per_second_excludes": "start-up, compilation, evaluation, saving",
        "time_to_first_step_seconds": session.time_to_first_step,
        "compile_seconds": progress.compile_seconds,
        "train_seconds": progress.train_seconds,
        "eval_seconds": progress.eval_seconds,
        "test_seconds": test_seconds,
        "wall_seconds": progress.wall_seconds,
        "starts": progress.starts,
    }
    return figures | _utilisation(session, rate)


def _utilisation(session: "Session", rate: float) -> dict[str, float | None]:
    """How much of each device the steps used, on average."""
    program = session.program
    costs = [_cost(made, session.mesh, session.feed.loader, session.steps_per_call) for _, made in program.stretches]
    mean_flops, mean_bytes = (
        None if None in of_step else program.mean_step(of_step) for of_step in zip(*costs, strict=True)
    )
    return flops.utilisation(
        session.config,
        session.mesh.devices.flat[0].device_kind,
        rate / program.global_batch_size,
        mean_flops,
        mean_bytes,
    )


@functools.lru_cache(maxsize=16)  # runs of one process that share a program share this too
def _cost(*step: Any) -> list[float | None]:
    """FLOPs of one step, and the bytes that it moves, by the arguments of `sharded.compiled_train_step`."""
    return executables.kept_figures(_computed_cost, *step)


def _computed_cost(*step: Any) -> list[float | None]:
    # A step is traced for its FLOPs where a kept program left nothing to trace.
    return [flops.of_program(*step), flops.bytes_of_program(*step)]


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """The summary in a workdir; None if the run is not finished."""
    path = folder / FILE
    return workdir.read_json(path) if path.exists() else None


def last_line(figures: dict[str, Any]) -> str:
    """The outcome for a person, on one line."""
    name = figures["headline"]
    kind = "moving average, " if name.startswith("ema_") else ""
    if figures["test"]:
        accuracy = figures["test"][name]
        outcome = f"test accuracy {100 * accuracy:.2f}% ({kind}{counted(figures['test']['examples'], 'example')})"
        augmented = figures["test"].get(name.replace("top1", "tta_top1"))
        if augmented is not None:
            outcome += f", {100 * augmented:.2f}% with test-time augmentation ({figures['tta']})"
    else:
        outcome = "no test split"
    full = ", protocol=full (no validation split)" if figures["protocol"] == "full" else ""
    shares = [
        f"{100 * share:.0f}% of peak {what}"
        for what, key in (("FLOP/s", "model_flops_utilisation"), ("bandwidth", "bandwidth_utilisation"))
        if (share := figures.get(key)) is not None
    ]
    used = "".join(f", {share}" for share in shares)
    return (
        f"{outcome} after {figures['epochs']:.2f} epochs, {figures['images_per_second']:.1f} images/s "
        f"(excluding compilation){used}, {figures['wall_seconds']:.1f} s in all{full}"
    )
