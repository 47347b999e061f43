"""A learning-rate range test: the loss while the rate grows from step to step (Smith 2015, arXiv 1506.01186)."""

import dataclasses
import io
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxcnn.config import Config, UserError
from jaxcnn.data.batch import Constants
from jaxcnn.data.image_statistics import image_statistics
from jaxcnn.data.source import open_splits
from jaxcnn.learn import programs
from jaxcnn.learn.metrics import COUNT, LOSS
from jaxcnn.learn.state import make_hyper
from jaxcnn.machine import mesh as meshes
from jaxcnn.text import save_picture
from jaxcnn.train import network_of_weights, norm_statistics, normalization, probe, setup, starting
from jaxcnn.train.starting import initialize_from_data

SMOOTHING = 0.9  # weight of the earlier losses in the smoothed loss
DIVERGED = 4.0  # the test ends when the smoothed loss is this many times its lowest value
FEWEST = 10  # fewest steps before the test may end
BELOW = 10.0  # the suggested rate is that of the lowest loss divided by this


@dataclasses.dataclass(frozen=True)
class RateRange:
    """The losses of a range test. A notebook shows its picture.

    Attributes:
      rates: the learning rate of each step, in units of `config.optim.learning_rate`.
      losses: the training loss of each step.
      smoothed: moving average of the losses, without the bias of its start.
      title: text on what was trained.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    title: str

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss was lowest."""
        return self.rates[int(np.argmin(self.smoothed))]

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss fell fastest, before the lowest one."""
        end = int(np.argmin(self.smoothed)) + 1
        if end < 3:
            return self.rates[0]
        slopes = np.gradient(np.array(self.smoothed[:end]), np.log(self.rates[:end]))
        return self.rates[int(np.argmin(slopes))]

    @property
    def suggestion(self) -> float:
        """A tenth of the rate of the lowest loss, rounded to two digits."""
        return float(f"{self.lowest / BELOW:.1e}")

    def draw(self, target: Any) -> None:
        """Draw loss over rate as a PNG into a file or a binary stream."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained", dpi=150)
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color="tab:gray", alpha=0.4, linewidth=1, label="loss of each step")
        axes.plot(self.rates, self.smoothed, color="tab:blue", linewidth=1.8, label="smoothed")
        for rate, colour, label in (
            (self.suggestion, "tab:red", f"suggested {self.suggestion:g}"),
            (self.steepest, "tab:green", f"steepest descent {self.steepest:.2g}"),
        ):
            axes.axvline(rate, color=colour, linewidth=1, linestyle="--", label=label)
        least, first = min(self.smoothed), self.smoothed[0]
        axes.set(xscale="log", xlabel="learning rate", ylabel="training loss", title=self.title)
        axes.set_ylim(least - 0.1 * (first - least), max(first, least) + 0.6 * max(first - least, 0.1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9, framealpha=0.85, edgecolor="none")
        save_picture(figure, target, format="png")

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.draw(stream)
        return stream.getvalue()


def measure(
    config: Config,
    steps: int = 100,
    lowest: float = 1e-6,
    highest: float = 10.0,
    say: Callable[[str], None] = print,
) -> RateRange:
    """Train from the initial weights while the learning rate grows from `lowest` to `highest` by a constant factor.

    The steps are those of training: the same batches, augmentation and optimiser, without its schedule. The rate is an
    input of the compiled step, so it is compiled once. Nothing is written.

    Args:
      config: the checked config.
      steps: number of steps; the test ends before them if the loss becomes too large.
      lowest, highest: the first and the last learning rate.
      say: called with each line for the user.

    Raises:
      UserError: the rates are in the wrong order, or the config cannot be trained.
    """
    if not 0 < lowest < highest or steps < FEWEST:
        raise UserError(f"a range test needs at least {FEWEST} steps, and a lowest rate above 0 and below the highest")
    if jax.process_count() > 1:
        raise UserError("a range test is for one process; run it on one host")
    config = network_of_weights.of(config)
    config = dataclasses.replace(
        config,
        schedule=dataclasses.replace(config.schedule, name="constant", warmup=0.0, boundaries=()),
        augment=dataclasses.replace(config.augment, small_sides=(), small_until=()),
        run=dataclasses.replace(config.run, steps=steps, steps_per_call=1),
    )
    starting.check(config.init)
    splits = open_splits(config.data, config.task)
    found = setup.on(config, splits, meshes.make_mesh(config.parallel.devices, config.parallel.model_devices))
    title = f"{config.model.name} on {splits.train.description}"
    say(f"jaxcnn: learning rates from {lowest:g} to {highest:g} in {steps} steps of {title}")
    state = programs.init_state(found.spec, found.mesh)(make_hyper(config))
    channels = splits.train.image_shape[-1]
    start = starting.of(config, found.spec, splits, None) if config.init.source else None
    known = normalization.given(config.augment, start.normal if start else None, channels)
    statistics = None
    if config.augment.normalize:
        statistics = image_statistics(splits.train) if known is None else [np.array(each, np.float32) for each in known]
    plain = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    constants = found.constants(meshes.put(Constants(*(statistics or plain)), meshes.replicated(found.mesh)))
    state = initialize_from_data(state, splits, constants)
    if start is not None:
        state = starting.begin(start, found, state, None, say)
        state = norm_statistics.reestimated(found, state, constants, say)
        if config.init.head == "fitted":
            state = probe.fitted(found, state, constants, say)
    return _walk(found, state, constants, np.geomspace(lowest, highest, steps), title)


def _walk(found: setup.Setup, state: Any, constants: Constants, rates: np.ndarray, title: str) -> RateRange:
    """Make the steps of the test."""
    optim = found.config.optim
    scale = float(make_hyper(found.config).learning_rate) / optim.learning_rate if optim.learning_rate else 1.0
    (arguments,) = found.train_steps
    step, replicated = programs.train_step(*arguments), meshes.replicated(found.mesh)
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    with found.make_loader().train_inputs(found.splits.train, 0) as inputs:
        for number, rate in enumerate(rates, start=1):
            hyper = state.hyper.replace(learning_rate=meshes.put(np.float32(rate * scale), replicated))
            state, metrics = step(state.replace(hyper=hyper), next(inputs), constants)
            loss = float(metrics.sums[LOSS]) / float(metrics.sums[COUNT])
            if not math.isfinite(loss):
                break
            losses.append(loss)
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            smoothed.append(average / (1 - SMOOTHING**number))
            if number >= FEWEST and smoothed[-1] > DIVERGED * min(smoothed):
                break
    if len(losses) < FEWEST:
        raise UserError(
            f"the loss was not finite after {len(losses)} steps, at a rate of {rates[len(losses)]:.2g}; lower --lowest"
        )
    return RateRange(tuple(map(float, rates[: len(losses)])), tuple(losses), tuple(smoothed), title)
