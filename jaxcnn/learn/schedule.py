"""Learning-rate schedules: the factor on `optim.learning_rate` at each step, in [0, 1]."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32, Int32

from jaxcnn.config import Schedule
from jaxcnn.machine import plugins

ONECYCLE_START = 1 / 25  # of the peak (Smith & Topin 2017, arXiv 1708.07120, as in fastai's and PyTorch's defaults)
ONECYCLE_RISE = 0.3  # of the run, when no warm-up is given


def learning_rate_factor(
    schedule: Schedule, step: Int32[Array, ""], *, total_steps: int, steps_per_epoch: float
) -> Float32[Array, ""]:
    """The factor at `step`, from 0.

    With a warm-up of w steps, the factor at step t < w is (t + 1) / w, after Goyal et al. 2017 (arXiv 1706.02677);
    then the named schedule runs over the rest of `total_steps` (multistep: boundaries count from the start of the
    run). `cosine` is without restarts (Loshchilov & Hutter 2016, arXiv 1608.03983); `onecycle` rises linearly
    from 1/25 and falls linearly (Smith & Topin 2017, arXiv 1708.07120).
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
        "cosine": lambda: optax.cosine_decay_schedule(1.0, rest, alpha=schedule.final_factor),
        "linear": lambda: optax.linear_schedule(1.0, schedule.final_factor, rest),
        "onecycle": lambda: optax.linear_schedule(1.0, schedule.final_factor, rest),
        "multistep": lambda: optax.piecewise_constant_schedule(1.0, boundaries),
    }
    after_warmup = main[schedule.name]() if schedule.name in main else _own(schedule, rest)
    whole = optax.join_schedules([rise, after_warmup], [warmup]) if warmup else after_warmup
    return jnp.asarray(whole(step), jnp.float32)


def _own(schedule: Schedule, steps: int) -> optax.Schedule:
    """A schedule of the user: a function of the step after the warm-up and of the number of these steps."""
    factor = plugins.load("schedules", schedule.name).function
    return lambda step: factor(step, steps)


def whitening_bias_scale(
    epochs: float, step: Int32[Array, ""], factor: Float32[Array, ""], *, steps_per_epoch: float
) -> Float32[Array, ""] | float:
    """The multiplier that turns the schedule's `factor` at `step` into that of a whitening bias.

    The bias is trained for the first `epochs` epochs (s steps, rounded up), and its factor at step t is 1 - t / s; with
    0 epochs it keeps the schedule's factor. Jordan 2024 (arXiv:2404.00498).
    """
    if not epochs:
        return 1.0
    steps = math.ceil(round(epochs * steps_per_epoch, 6))
    own = jnp.maximum(1.0 - step / steps, 0.0)
    return jnp.where(factor > 0, own / jnp.where(factor > 0, factor, 1.0), 0.0)
