"""The endurance command's own code: what grows or becomes slower is told, and what swings is not."""

import collections
import dataclasses
import gc
import os
import sys
import threading
import time

import jax
import pytest

from jaxcnn.train.hooks import Hooks
from jaxcnn.train.loop import train
from tests import digits, small
from tests.endurance.page import page
from tests.endurance.samples import Sample, complaints, figures, sample

FLAT = [Sample(k, 2.0 * k, 1.0 * k, 10_000 + 90 * (k % 2), 20 + 9 * (k % 3 == 0), 12 + k % 2) for k in range(100)]


def changed(since, **added):
    """`FLAT` with something more in each sample from one on."""
    return [
        dataclasses.replace(each, **{name: getattr(each, name) + more for name, more in added.items()})
        if each.done >= since
        else each
        for each in FLAT
    ]


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        (FLAT, []),
        (changed(10, memory=5000, files=4, threads=3), []),  # what every run needs is there after the first tenth
        (changed(40, memory=150), []),
        (changed(80, memory=400), ["memory grew by 4.0%, of 2%"]),
        (changed(80, files=1), ["open files grew from 20 to 21"]),
        (changed(80, threads=2), ["threads grew from 12 to 14"]),
        (changed(30, threads=2), []),  # a pool that is full by then
        ([dataclasses.replace(each, threads=12 + each.done // 20) for each in FLAT], ["threads grew from 12 to 16"]),
        ([dataclasses.replace(each, processor=each.done**1.2) for each in FLAT], ["the last tenth took"]),
        (  # what was slow in the first tenth alone hides nothing
            [
                dataclasses.replace(each, processor=each.done + max(each.done - 90, 0) + min(each.done, 9))
                for each in FLAT
            ],
            ["the last tenth took"],
        ),
    ],
)
def test_only_what_grows_after_the_first_tenth_or_becomes_slower_is_told(samples, told):
    found = complaints(figures(samples))
    assert len(found) == len(told) and all(one.startswith(two) for one, two in zip(found, told, strict=True))


def test_too_few_samples_are_no_figures():
    with pytest.raises(ValueError, match="fewer than 3 samples"):
        figures(FLAT[:20])


def test_a_process_is_sampled_with_what_it_holds(tmp_path):
    before = sample(os.getpid(), 0)
    with (tmp_path / "a").open("w"):
        after = sample(os.getpid(), 1)
    assert after.files == before.files + 1 and after.seconds >= before.seconds and after.processor >= before.processor
    assert after.threads >= 1 and after.memory > 2**20


def test_the_page_has_the_figures_and_says_what_was_wrong():
    told = figures(FLAT)
    record = {name: {"figures": told, "wrong": []} for name in ("steps", "requests")}
    record["requests"]["wrong"] = ["threads grew from 12 to 14"]
    text = page(record | {"command": "python -m tests.endurance"})
    assert "99 steps in 198 s." in text and "| steps per second | 0.5 | 0.5 | 0.5 | 0.5 |" in text
    assert text.count("Nothing grew") == 1 and "- wrong: threads grew from 12 to 14" in text


@pytest.mark.unoptimised
def test_more_steps_checkpoints_evaluations_and_callbacks_leave_no_objects_arrays_or_threads(tmp_path):
    seen, evaluated = [], []

    def look(step):
        if step.step in (14, 44):  # thirty checkpoints and six evaluations lie between
            names = ("async_save", "save_finalize")
            while any(each.name in names for each in threading.enumerate()):
                time.sleep(0.01)
            gc.collect()
            kinds = collections.Counter(type(each).__name__ for each in gc.get_objects())
            names = sorted(each.name for each in threading.enumerate())
            seen.append((kinds, sys.getallocatedblocks(), len(jax.live_arrays()), names))

    config = digits.config(
        run={"steps": 46, "eval_every_epochs": 0.25, "log_every_steps": 1, "tensorboard": True},
        checkpoint={"every_steps": 1, "keep_every_steps": 0},
    )
    with small.programs_kept():
        train(config, tmp_path, command=digits.COMMAND, hooks=Hooks(after_step=look, after_evaluation=evaluated.append))
    (before, blocks, *held), (after, more, *still) = seen
    assert len(evaluated) >= 9 and still == held
    assert more - blocks < 30 * 80  # strings and numbers, too, of which a save left 235; the rest is 700 in all
    grown = {kind: count for kind in after if (count := after[kind] - before[kind])}
    assert grown["Evaluation"] == 6  # what the caller keeps is seen
    assert {kind: count for kind, count in grown.items() if count >= 30} == {}  # one for each checkpoint
