"""The final figures of a run: their file, `summary.json`, and their one line."""

import pathlib
from typing import Any

from jaxcnn.config import Config, UserError
from jaxcnn.tasks.headline import Headline
from jaxcnn.text import counted
from jaxcnn.train import assess, workdir
from jaxcnn.train.terminal import epochs

FILE = "summary.json"


def headline(config: Config, figure: Headline) -> str:
    """The name of the figure that decides: that of the moving average if the run keeps one."""
    return f"ema_{figure.name}" if config.optim.averages else figure.name


def headline_of(figures: dict[str, Any]) -> Headline:
    """The headline figure of a summary; earlier versions knew only accuracy."""
    kind = figures.get("headline_kind", {"label": "accuracy", "better": "higher", "percent": True})
    return Headline(figures.get("headline", "").removeprefix("ema_"), **kind)


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """The summary in a workdir; None if the run is not finished.

    Raises:
      UserError: the file is damaged.
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
    """Rename the summary and the test of a finished run that is made longer, by the steps that it had."""
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
    """The outcome of a run as one line of text."""
    name, figure = figures["headline"], headline_of(figures)
    kind = "moving average, " if name.startswith("ema_") else ""
    if figures["test"]:
        value = figures["test"].get(name)  # absent if the test split has too few classes for it
        examples = counted(figures["test"]["examples"], "example")
        told = "unknown" if value is None else figure.shown(value)
        outcome = f"test {figure.label} {told} ({kind}{examples})"
        augmented = figures["test"].get(name.replace(figure.name, f"tta_{figure.name}"))
        if augmented is not None:
            outcome += f", {figure.shown(augmented)} with test-time augmentation ({figures['tta']})"
    else:
        outcome = "no test split"
    if figures.get("sparsity"):
        outcome += f", {100 * figures['sparsity']:.1f}% of the weights of kernels pruned"
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
