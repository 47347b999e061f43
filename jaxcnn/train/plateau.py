"""Reduce on plateau: the rate falls when validation has had no new best for a while (`schedule.name="plateau"`).

The rate is a number in the state (`State.hyper`), and what it waits for is in `Progress`, so a checkpoint has both:
a resumed run lowers the rate after the same steps, to the same bits.
"""

import dataclasses

import jax
import numpy as np

from jaxcnn.learn.state import make_hyper
from jaxcnn.train.due import Due
from jaxcnn.train.session import Session


def after_validation(session: Session, due: Due) -> None:
    """Lower the rate if this validation is the `schedule.patience`-th in a row without a new best, or since it fell.

    The rate is multiplied by `schedule.decay_factor`, but is at least `schedule.final_factor` times the first one.
    """
    schedule, progress = session.config.schedule, session.progress
    if schedule.name != "plateau":
        return
    if due.since(max(progress.best_step, progress.reduced), session.step) < schedule.patience:
        return
    before = session.state.hyper.learning_rate
    rate, least = np.float32(jax.device_get(before)), _first_rate(session) * np.float32(schedule.final_factor)
    lower = max(rate * np.float32(schedule.decay_factor), least)
    if lower >= rate:
        return
    hyper = dataclasses.replace(session.state.hyper, learning_rate=jax.device_put(lower, before.sharding))
    session.state = dataclasses.replace(session.state, hyper=hyper)
    progress.reduced = session.step
    session.logbook.say(
        f"step {session.step}: learning rate {rate:g} becomes {lower:g}; the last {schedule.patience} validations had "
        "no new best"
    )


def _first_rate(session: Session) -> np.float32:
    return np.float32(make_hyper(session.config).learning_rate)
