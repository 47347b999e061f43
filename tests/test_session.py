"""What stops a start before its first step, in one line each, and leaves the workdir free."""

import dataclasses
import types

import numpy as np
import pytest

from jaxcnn.config import Config, ConfigError, Data, UserError
from jaxcnn.data.source import open_splits
from jaxcnn.tasks.classes import Classes
from jaxcnn.train import session
from jaxcnn.train.loop import train
from tests import small

DIGITS = {"source": "digits", "val_examples": 200}


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"global_batch_size": 2048}, "has 1237 examples, fewer than one batch of config.global_batch_size=2048"),
        ({"model": {"num_classes": 7}}, "config.model.num_classes=7, but digits train .* has 10 classes"),
        ({"global_batch_size": 60}, "config.global_batch_size=60 is not divisible by 8 devices"),
        (
            {"global_batch_size": 64, "optim": {"accumulate_steps": 16}, "norm": {"group_size": 4}},
            "is not divisible by 8 devices x config.optim.accumulate_steps=16",
        ),
        ({"global_batch_size": 48, "norm": {"group_size": 16}}, "config.norm.group_size=16 does not fit 6 examples"),
        ({"parallel": {"devices": 9}}, "config.parallel.devices=9, but this process has 8"),
        ({"model": {"name": "vgg16", "form": "imagenet"}}, "the images are too small for this network"),
        ({"data": DIGITS | {"source": "digit"}}, "did you mean 'digits'"),
        ({"data": DIGITS | {"source": "folder:/nowhere"}}, "this folder does not exist"),
        ({"run": {"epochs": 1e8}}, "more than the 2\\^32 examples"),
    ],
)
def test_what_cannot_be_is_refused_and_pins_nothing(groups, words, tmp_path):
    config = small.config(**{"data": DIGITS} | groups)
    with pytest.raises(UserError, match=words) as caught:
        train(config, tmp_path / "run", command=[])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        train(small.config(data=DIGITS), tmp_path / "run", command=[])


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([5, 6, 7], "a0, a1, a2"),
        ([5, 6, 16], "a0 5, a1 6, a2 16"),
        ([5] * 21 + [4], ", ".join(f"a{k}" for k in range(20)) + " and 2 more"),
        ([5] * 21 + [1], ", ".join(f"a{k}" for k in range(20)) + " and 2 more, of 1 (a21) to 5 (a0) examples"),
    ],
)
def test_a_run_tells_its_classes_and_how_uneven_they_are(counts, told):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    assert Classes(len(counts)).describe(labels, [f"a{k}" for k in range(len(counts))]) == told


def test_a_run_tells_its_classes_and_what_was_passed_over_before_it_trains():
    data = Data(source="synthetic:8x8x3:25:100", protocol="full", test_split="")
    splits = dataclasses.replace(open_splits(data), notes=("skipped 3 files",))
    lines: list[str] = []
    session._tell_of_splits(
        Config(data=data), splits, types.SimpleNamespace(say=lambda line, style="": lines.append(line))
    )
    assert lines[0] == "  skipped 3 files"
    assert any(line.startswith("  classes: 0, 1, ") and line.endswith("19 and 5 more") for line in lines)


def test_these_are_mistakes_of_the_config():
    assert issubclass(ConfigError, UserError)
    assert ConfigError("x").exit_code == 2
