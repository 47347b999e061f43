"""The final figures of a run, in `summary.json` and in one line."""

import functools
import pathlib
from typing import TYPE_CHECKING, Any

from jaxcnn.config import Config, UserError
from jaxcnn.learn import executables
from jaxcnn.learn.state import count_parameters
from jaxcnn.machine.mesh import describe
from jaxcnn.tasks.headline import Headline
from jaxcnn.text import counted
from jaxcnn.train import assess, flops, workdir
from jaxcnn.train.terminal import epochs

if TYPE_CHECKING:
    from jaxcnn.train.session import Session

FILE = "summary.json"


def headline(config: Config, figure: Headline) -> str:
    """The name of the figure that decisions use: that of the moving average if the run keeps one."""
    return f"ema_{figure.name}" if config.optim.averages else figure.name


def headline_of(figures: dict[str, Any]) -> Headline:
    """The headline figure of a summary; earlier versions knew only accuracy."""
    kind = figures.get("headline_kind", {"label": "accuracy", "better": "higher", "percent": True})
    return Headline(figures.get("headline", "").removeprefix("ema_"), **kind)


def make(session: "Session", test: dict[str, Any] | None, test_seconds: float) -> dict[str, Any]:
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
        "headline": headline(config, figure),
        "headline_kind": {"label": figure.label, "better": figure.better, "percent": figure.percent},
        "tta": config.run.tta,
        "test": test,
        "earlier_tests": earlier_tests(session.folder),
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
    return figures | _utilisation(session, rate)


def _utilisation(session: "Session", rate: float) -> dict[str, float | None]:
    """How much of each device the steps used, on average."""
    spec = session.spec
    costs = [_cost(made, session.mesh, session.loader.kind, session.steps_per_call) for _, made in spec.stages]
    mean_flops, mean_bytes = (
        None if None in of_step else spec.mean_step(of_step) for of_step in zip(*costs, strict=True)
    )
    per_image = None if mean_flops is None else mean_flops * session.mesh.size / spec.global_batch_size
    return {"training_flops_per_image": per_image} | flops.utilisation(
        session.config,
        session.mesh.devices.flat[0].device_kind,
        rate / spec.global_batch_size,
        mean_flops,
        mean_bytes,
    )


@functools.lru_cache(maxsize=16)  # runs in one process that share a program share this too
def _cost(*step: Any) -> list[float | None]:
    """FLOPs of one step and the bytes that it moves, for the arguments of `programs.train_step`."""
    return executables.kept_figures(_computed_cost, *step)


def _computed_cost(*step: Any) -> list[float | None]:
    # A step whose program was kept by an earlier process was not traced yet; it is traced here, for its FLOPs.
    return [flops.of_program(*step), flops.bytes_of_program(*step)]


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """The summary in a workdir; None if the run is not finished.

    Raises:
      UserError: it is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        figures = workdir.read_sealed(path)
        last_line(figures)
    except (UserError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged; remove it, and the same command creates it again from the last checkpoint"
        ) from error
    return figures


def write(folder: pathlib.Path, figures: dict[str, Any]) -> None:
    """Write the summary, which marks the run as finished."""
    workdir.write_sealed(folder / FILE, figures)


def set_aside(folder: pathlib.Path) -> None:
    """Rename the summary and the test of a finished run that is made longer, after the steps it had."""
    if (figures := read(folder)) is not None:
        for name in (FILE, assess.TEST):
            path = folder / name
            if path.exists():
                path.rename(path.with_stem(f"{path.stem}-{figures['steps']}"))


def earlier_tests(folder: pathlib.Path) -> list[int]:
    """The steps at which this run was finished, and the test split evaluated, before it was made longer."""
    ends = (path.stem.removeprefix("summary-") for path in folder.glob("summary-*.json"))
    return sorted(int(end) for end in ends if end.isdecimal())


def last_line(figures: dict[str, Any]) -> str:
    """The outcome as one readable line."""
    name, figure = figures["headline"], headline_of(figures)
    kind = "moving average, " if name.startswith("ema_") else ""
    if figures["test"]:
        value = figures["test"][name]
        examples = counted(figures["test"]["examples"], "example")
        outcome = f"test {figure.label} {figure.shown(value)} ({kind}{examples})"
        augmented = figures["test"].get(name.replace(figure.name, f"tta_{figure.name}"))
        if augmented is not None:
            outcome += f", {figure.shown(augmented)} with test-time augmentation ({figures['tta']})"
    else:
        outcome = "no test split"
    full = ", protocol=full (no validation split)" if figures["protocol"] == "full" else ""
    shares = [
        f"{100 * share:.0f}% of peak {what}"
        for what, key in (("FLOP/s", "model_flops_utilisation"), ("bandwidth", "bandwidth_utilisation"))
        if (share := figures.get(key)) is not None
    ]
    early = " (stopped early)" if figures.get("stopped_early") else ""
    used = "".join(f", {share}" for share in shares)
    length = epochs(figures["steps"], figures["steps"] / figures["epochs"])
    length += " epoch" if length == "1" else " epochs"
    return (
        f"{outcome} after {length}{early}, {figures['images_per_second']:.1f} images/s "
        f"(excluding compilation){used}, {figures['wall_seconds']:.1f} s in all{full}"
    )
