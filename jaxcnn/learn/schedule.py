"""Learning-rate schedules: the factor on `optim.learning_rate` at each step, in [0, 1]."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32, Int32

from jaxcnn.config import Schedule
from jaxcnn.config.ranges import INT32
from jaxcnn.machine import plugins

ONECYCLE_START = 1 / 25  # of the peak (Smith & Topin 2017, arXiv 1708.07120, as in fastai's and PyTorch's defaults)
ONECYCLE_RISE = 0.3  # share of the run, when no warm-up is given


def learning_rate_factor(
    schedule: Schedule, step: Int32[Array, ""], *, total_steps: int, steps_per_epoch: float
) -> Float32[Array, ""]:
    """The factor of the learning rate at `step`, counted from 0.

    With a warm-up of w steps, the factor at step t < w is (t + 1) / w, after Goyal et al. 2017 (arXiv 1706.02677);
    then the named schedule runs over the rest of `total_steps` (multistep: boundaries count from the start of the
    run). `cosine` is without restarts, `restarts` with them (Loshchilov & Hutter 2016, arXiv 1608.03983); `onecycle`
    rises linearly from 1/25 and falls linearly (Smith & Topin 2017, arXiv 1708.07120). `trapezoid` is constant, with a
    linear fall at its end (Zhai et al. 2022, arXiv 2106.04560; "warmup-stable-decay" in Hu et al. 2024, arXiv
    2404.06395). `plateau` is constant here; the factor that lowers it is in the state (`jaxcnn.train.plateau`).
    """
    unit = steps_per_epoch if schedule.unit == "epochs" else 1.0
    warmup = min(round(schedule.warmup * unit), total_steps)
    if schedule.name == "onecycle":
        warmup = warmup or max(1, round(ONECYCLE_RISE * total_steps))
        rise = optax.linear_schedule(ONECYCLE_START, 1.0, warmup)
    else:
        rise = optax.linear_schedule(1.0 / max(warmup, 1), 1.0, max(warmup - 1, 1))
    rest = max(total_steps - warmup, 1)
    boundaries: dict[int, float] = {}
    for boundary in schedule.boundaries:
        after = round(boundary * unit) - warmup
        boundaries[after] = boundaries.get(after, 1.0) * schedule.decay_factor
    main: dict[str, Callable[[], optax.Schedule]] = {
        "constant": lambda: optax.constant_schedule(1.0),
        "plateau": lambda: optax.constant_schedule(1.0),
        "restarts": lambda: _restarts(schedule, max(round(schedule.period * unit), 1), rest),
        "trapezoid": lambda: _trapezoid(schedule, rest, round(schedule.cooldown * total_steps)),
        "cosine": lambda: optax.cosine_decay_schedule(1.0, rest, alpha=schedule.final_factor),
        "linear": lambda: optax.linear_schedule(1.0, schedule.final_factor, rest),
        "onecycle": lambda: optax.linear_schedule(1.0, schedule.final_factor, rest),
        "multistep": lambda: optax.piecewise_constant_schedule(1.0, boundaries),
    }
    after_warmup = main[schedule.name]() if schedule.name in main else _own(schedule, rest)
    whole = optax.join_schedules([rise, after_warmup], [warmup]) if warmup else after_warmup
    return jnp.asarray(whole(step), jnp.float32)


def _restarts(schedule: Schedule, period: int, steps: int) -> optax.Schedule:
    """Cosines from 1 to `final_factor`: the first takes `period` steps, each next one `period_factor` times as many.

    Lengths are rounded to steps.
    """
    lengths = [period]
    while schedule.period_factor > 1 and sum(lengths) < steps:
        lengths.append(round(min(period * schedule.period_factor ** len(lengths), INT32)))
    starts, of_each = np.cumsum([0, *lengths[:-1]]), np.array(lengths)

    def factor(step: Int32[Array, ""]) -> Float32[Array, ""]:
        number = jnp.searchsorted(jnp.asarray(starts, jnp.int32), step, side="right") - 1
        length = jnp.asarray(of_each, jnp.int32)[number]
        within = (step - jnp.asarray(starts, jnp.int32)[number]) % length  # equal cosines are one that repeats
        return schedule.final_factor + (1 - schedule.final_factor) * (1 + jnp.cos(jnp.pi * within / length)) / 2

    return factor


def _trapezoid(schedule: Schedule, steps: int, cooldown: int) -> optax.Schedule:
    """1, then in the last `cooldown` of `steps` steps a line to `final_factor`, the factor of the step after them."""
    fall = min(max(cooldown, 1), steps)
    return optax.linear_schedule(1.0, schedule.final_factor, fall, transition_begin=steps - fall)


def _own(schedule: Schedule, steps: int) -> optax.Schedule:
    """A schedule of the user: a function of the step after the warm-up and of the number of all such steps."""
    factor = plugins.load("schedules", schedule.name).function
    return lambda step: factor(step, steps)


def whitening_bias_scale(
    epochs: float, step: Int32[Array, ""], factor: Float32[Array, ""], *, steps_per_epoch: float
) -> Float32[Array, ""] | float:
    """The multiplier that turns the schedule's `factor` at `step` into the factor of a whitening bias.

    The bias is trained for the first `epochs` epochs (s steps, rounded up), and its factor at step t is 1 - t / s; with
    0 epochs it keeps the schedule's factor. Jordan 2024 (arXiv:2404.00498).
    """
    if not epochs:
        return 1.0
    steps = math.ceil(round(epochs * steps_per_epoch, 6))
    own = jnp.maximum(1.0 - step / steps, 0.0)
    return jnp.where(factor > 0, own / jnp.where(factor > 0, factor, 1.0), 0.0)
