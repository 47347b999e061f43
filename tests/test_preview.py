"""The contact sheet: what it shows is what training does, and the command ends as commands do."""

import dataclasses
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn import config as configuration
from jaxcnn.config import Augment, Config
from jaxcnn.data import augment
from jaxcnn.data.batch import Batch
from jaxcnn.learn.state import step_key
from jaxcnn.learn.step import AUGMENT
from jaxcnn.tasks.classes import Classes, Mixed
from jaxcnn.train import contact_sheet

KIND = Classes(4)
NAMES = ("cat", "dog", "automobile", "an uncommonly long class name")


@dataclasses.dataclass
class MemorySplit:
    images: np.ndarray
    targets: np.ndarray
    class_names: tuple[str, ...] = NAMES
    name: str = "train"
    description: str = "in memory/train"

    @property
    def image_shape(self):
        return self.images.shape[1:]

    @property
    def dtype(self):
        return self.images.dtype

    def __len__(self):
        return len(self.targets)

    def read(self, indices):
        return self.images[indices]


def split(side=8, channels=3, count=24):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    return MemorySplit(images, (np.arange(count) % len(NAMES)).astype(np.int32))


def config_of(seed=0, **fields):
    return Config(seed=seed, augment=Augment(**fields))


def rendered(sheet, path):
    sheet.savefig(path, format="png", dpi=contact_sheet.DPI)
    return np.asarray(Image.open(path).convert("RGB"))


def test_draws_are_what_training_does_at_these_steps_and_positions():
    config = config_of(seed=5, crop="zero", crop_padding=2, flip="random", mixup=0.5)
    data = split()
    shown = contact_sheet.augmented_draws(config, data, KIND, examples=5, draws=3)
    chosen = contact_sheet.choose(data.targets, 5, 5)
    np.testing.assert_array_equal(shown.original, data.images[chosen])
    np.testing.assert_array_equal(shown.target.label, data.targets[chosen])
    position = jnp.arange(5, dtype=jnp.int32)
    batch = Batch(
        jnp.asarray(data.images[chosen]), jnp.asarray(data.targets[chosen]), position, position, position >= 0
    )
    for step in range(3):
        key = jax.random.fold_in(step_key(jnp.int32(5), jnp.int32(step)), AUGMENT)
        made = jax.jit(augment.augment, static_argnums=(0, 1))
        expected = made(config.augment, KIND, batch, key, jnp.zeros(3), jnp.ones(3))
        np.testing.assert_allclose(shown.image[step], expected.image, atol=1e-6)
        jax.tree.map(np.testing.assert_array_equal, shown.targets[step], expected.target)


def test_an_alternating_flip_turns_over_from_column_to_column():
    data = split()
    shown = contact_sheet.augmented_draws(config_of(flip="alternating"), data, KIND, examples=6, draws=3)
    for example, original in enumerate(shown.original / np.float32(255)):
        mirrored = [np.allclose(draw[example], original[:, ::-1], atol=1e-6) for draw in shown.image]
        assert mirrored in ([True, False, True], [False, True, False])


def test_examples_are_of_different_classes_first_and_each_is_shown_once():
    labels = np.array([0] * 90 + [1] * 5 + [2] * 5)
    chosen = contact_sheet.choose(labels, 10, seed=3)
    assert len(set(chosen)) == 10
    assert set(labels[chosen[:3]]) == {0, 1, 2}
    assert len(contact_sheet.choose(labels[:4], 10, seed=3)) == 4
    assert not np.array_equal(chosen, contact_sheet.choose(labels, 10, seed=4))


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3), (224, 3), (300, 1)])
def test_the_sheet_shows_the_original_crisp_and_every_cell(side, channels, tmp_path):
    data = split(side, channels, count=4)
    pixels = rendered(contact_sheet.draw_sheet(config_of(), data, KIND, 2, 2), tmp_path / "sheet.png")
    original = data.images[contact_sheet.choose(data.targets, 1, 0)[0]]
    cell = np.round(contact_sheet.to_cell(original / 255) * 255).astype(np.uint8)
    height, width = cell.shape[:2]
    assert height == width == {8: 120, 32: 128, 224: 224, 300: 256}[side]
    if side <= 256:
        np.testing.assert_array_equal(
            cell[:: height // side, :: width // side], np.broadcast_to(original, (side,) * 2 + (3,))
        )
    left, top = contact_sheet.MARGIN, contact_sheet.MARGIN + contact_sheet.LINE * 4
    step = left + width + contact_sheet.GAP_AFTER_ORIGINAL
    for x in (left, step, step + width + contact_sheet.GAP):  # nothing is augmented: all three cells are the original
        shown = pixels[top : top + height, x : x + width].astype(int)
        assert np.abs(shown - cell).max() <= 1  # the renderer may round the other way


def test_mixed_targets_are_told_in_percent():
    mixed = Mixed(np.array([0, 0, 0, 1]), np.array([1, 1, 1, 1]), np.array([0.7, 1.0, 0.001, 0.3]))
    assert KIND.captions(mixed, NAMES, 40) == ["cat 70 % / dog 30 %", "cat", "dog", "dog"]
    (long,) = KIND.captions(Mixed(*(np.array([each]) for each in (3, 2, 0.5))), NAMES, 18)
    assert [len(part) <= 18 for part in long.split(" / ")] == [True, True]


def test_mixed_sheets_have_a_caption_under_every_cell(tmp_path):
    plain = rendered(contact_sheet.draw_sheet(config_of(flip="random"), split(), KIND, 3, 2), tmp_path / "plain.png")
    mixed = rendered(
        contact_sheet.draw_sheet(config_of(flip="random", cutmix=1.0), split(), KIND, 3, 2), tmp_path / "mixed.png"
    )
    assert mixed.shape[0] - plain.shape[0] == 3 * contact_sheet.LINE  # two lines in each of three rows
    assert mixed.shape[1] == plain.shape[1]


def test_the_title_tells_what_is_on_and_nothing_else():
    assert contact_sheet.settings(Augment()) == "no augmentation"
    assert contact_sheet.settings(Augment(crop="zero", flip="random")) == "crop=zero, crop_padding=4, flip=random"
    assert contact_sheet.settings(Augment(policy="trivialaugment", normalize=False)) == (
        "policy=trivialaugment, normalize=False"
    )
    assert contact_sheet.settings(Augment(policy="randaugment")) == (
        "policy=randaugment, policy_layers=2, policy_magnitude=9.0"
    )
    known = {field.name for field in dataclasses.fields(configuration.Augment)}
    everything = Augment(
        *(True, "zero", 4, True, 4, 0.5, 0.5, (0.5, 2.0), *(0.5,) * 11, "randaugment", 2, 9.0, ("a:b",)),
        *((20,), (0.5,), (20,), ((32, 64),), "given", (0.5,), (0.5,)),
    )
    told = set(re.findall(r"(?:^|, )(\w+)=", contact_sheet.settings(everything)))
    assert told == known - {"normalize"}


def command(*arguments, root):
    return subprocess.run(
        [sys.executable, "-m", "jaxcnn.preview", *arguments], cwd=root, capture_output=True, text=True, timeout=120
    )


def test_the_command_writes_a_picture(root, tmp_path):
    out = tmp_path / "sheet.png"
    result = command(
        "--config=configs/quickstart.py", "--config.augment.cutout=3", "--examples=2", "--draws=3", "--seed=1",
        f"--out={out}", root=root,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, f"wrote {out}\n"), result.stderr
    assert Image.open(out).format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no config was given"),
        (("--config=configs/quickstart.py", "--config.augment.crop=wrong"), "config.augment.crop"),
        (("--config=configs/quickstart.py", "--out=no/such/folder/a.png"), "no/such/folder"),
        (("--config=configs/quickstart.py", "--examples=0"), "examples"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, root):
    result = command(*arguments, root=root)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1, result.stderr
    assert message in result.stderr
