"""Damaged images, and what a network makes of them: `python -m jaxcnn.robustness`."""

import colorsys
import io
import json
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxcnn.config import Data, UserError
from jaxcnn.data import corruptions
from jaxcnn.data.corruptions import EXTRA, KINDS, corrupt
from jaxcnn.data.source import open_splits
from jaxcnn.train import robustness, trained
from tests import digits, runs, small

GOLDENS = pathlib.Path(__file__).with_name("goldens")
PHOTO = np.random.default_rng(0).integers(0, 256, (36, 36, 3), np.uint8)


@pytest.mark.parametrize("name", KINDS)
def test_a_corruption_depends_on_its_seed_alone_and_most_grow_with_their_severity(name):
    made = [corrupt(PHOTO, name, severity, (0, 7)) for severity in (1, 2, 3, 4, 5)]
    assert all(each.shape == PHOTO.shape and each.dtype == np.uint8 for each in made)
    assert np.array_equal(corrupt(PHOTO, name, 3, (0, 7)), made[2])
    away = [np.abs(each.astype(float) - PHOTO).mean() for each in made]
    assert min(away) > 0
    if name not in ("elastic_transform", "saturate", "glass_blur"):  # whose constants do not grow with the severity
        assert away[4] > away[0]
    if name in ("gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog", "elastic_transform",
                "glass_blur", "snow", "frost"):  # fmt: skip
        assert not np.array_equal(corrupt(PHOTO, name, 3, (0, 8)), made[2])
    grey = corrupt(PHOTO[:, :20, :1], name, 5, (0, 0))
    assert grey.shape == (36, 20, 1) and (name == "saturate" or grey.std() > 0)
    large = corrupt(PHOTO.repeat(3, axis=0).repeat(2, axis=1), name, 5, (0, 0))
    assert large.shape == (108, 72, 3)


def test_noise_has_the_strength_that_its_name_says():
    even = np.full((64, 64, 3), 128, np.uint8)

    def of(name, severity):
        return corrupt(even, name, severity, (1,)).astype(float) / 255

    # Of 12,288 values; the relative error of a deviation is about 1 / sqrt(2 n) = 0.6 %.
    assert of("gaussian_noise", 5).std() == pytest.approx(0.10, rel=0.03)
    assert of("speckle_noise", 5).std() == pytest.approx(0.2 * 128 / 255, rel=0.03)
    assert of("shot_noise", 5).std() == pytest.approx((128 / 255 / 50) ** 0.5, rel=0.03)
    struck = of("impulse_noise", 5)
    assert ((struck == 0) | (struck == 1)).mean() == pytest.approx(0.07, abs=0.01)


def test_blur_and_zoom_keep_an_even_image_and_contrast_and_brightness_are_closed_forms():
    even = np.full((40, 40, 3), 90, np.uint8)
    for name in ("defocus_blur", "gaussian_blur", "motion_blur", "zoom_blur", "elastic_transform", "pixelate",
                 "glass_blur"):  # fmt: skip
        assert np.array_equal(corrupt(even, name, 5, (0,)), even), name
    unit = PHOTO / 255
    mean = unit.mean(axis=(0, 1))
    wanted = np.rint(255 * np.clip((unit - mean) * 0.15 + mean, 0, 1))
    assert np.array_equal(corrupt(PHOTO, "contrast", 5, (0,)), wanted)
    for name, change in (("brightness", lambda h, s, v: (h, s, min(v + 0.3, 1))),
                         ("saturate", lambda h, s, v: (h, min(s * 2.5 + 0.2, 1), v))):  # fmt: skip
        pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*each))) for each in unit.reshape(-1, 3)]
        found = corrupt(PHOTO, name, 5, (0,)).reshape(-1, 3)
        assert np.abs(found - 255 * np.array(pixels)).max() <= 0.5 + 1e-9, name
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "JPEG", quality=40)
    assert np.array_equal(corrupt(PHOTO, "jpeg_compression", 5, (0,)), np.asarray(Image.open(file)))


def test_glass_blur_is_that_of_imagecorruptions_with_its_own_moves():
    """`goldens/make_corruption_goldens.py` makes the other side."""
    kept = np.load(GOLDENS / "corruption_goldens.npz")
    photo = kept["photo"]
    for severity, (deviation, reach, turns) in enumerate(KINDS["glass_blur"][2], start=1):
        sides = (turns, *(side - 2 * reach for side in photo.shape[:2]), 2)
        moves = np.random.RandomState(severity).randint(-reach, reach, sides)
        blurred = ndimage.gaussian_filter(photo / 255, (deviation, deviation, 0), mode="nearest")
        ours = ndimage.gaussian_filter(
            corruptions._shattered(blurred, moves, reach), (deviation, deviation, 0), mode="nearest"
        )
        # It rounds down to a whole number after each of its two blurs, by less than 1 of 255.
        away = 255 * ours - kept["glass_blur"][severity - 1]
        assert away.min() > -1e-6 and away.max() < 2


@pytest.mark.parametrize("name", ["snow", "frost"])
def test_snow_and_frost_are_as_bright_and_as_rough_as_those_of_imagecorruptions(name):
    kept = np.load(GOLDENS / "corruption_goldens.npz")
    for severity in (1, 2, 3, 4, 5):
        made = [corrupt(kept["photo"], name, severity, (0, number)) for number in range(20)]
        mean, roughness = np.mean(made), np.mean([np.std(each, axis=(0, 1)).mean() for each in made])
        theirs = kept[f"{name}_mean"][severity - 1], kept[f"{name}_std"][severity - 1]
        # Of 20 drawings each, whose means spread by some 12 (frost: which of five photographs it is), so by 4 together.
        assert mean == pytest.approx(theirs[0], abs=12) and roughness == pytest.approx(theirs[1], abs=5), severity


def test_human_votes_are_compared_by_closed_forms():
    probability = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    votes = np.array([[10.0, 0, 0], [4, 4, 2], [0, 6, 4]])
    told = robustness.against_votes(np.log(probability) + 3, np.array([0, 1, 2]), votes)
    shares = votes / 10
    assert told["cross_entropy"] == pytest.approx(-(shares * np.log(probability)).sum() / 3)
    assert told["entropy_of_votes"] == pytest.approx(
        -sum(share * np.log(share) for share in shares.ravel() if share) / 3
    )
    assert told["most_voted_accuracy"] == pytest.approx(1 / 3)
    assert (told["clear_examples"], told["clear_accuracy"]) == (1, 1.0)
    assert (told["disputed_examples"], told["disputed_accuracy"]) == (2, 1.0)


def test_images_are_left_out_by_the_first_column_of_a_file(tmp_path):
    file = tmp_path / "left.csv"
    file.write_text("TestID,TrainID\n3,9\n0,8\n")
    assert robustness.kept(5, file, 0).tolist() == [1, 2, 4]
    assert robustness.kept(5, file, 2).tolist() == [1, 2]
    assert robustness.kept(6, None, 3).tolist() == [0, 2, 4]
    for text, message in (("3\n7\n", "indices up to 7"), ("0\nx\n", "does not begin with an index"),
                          ("0\n1\n2\n3\n4\n", "leaves no image"), ("0\n,,\n", "does not begin with an index"),
                          ("0\n99999999999999999999\n", "does not begin with an index")):  # fmt: skip
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            robustness.kept(5, file, 0)


def test_votes_in_another_order_than_the_images_are_refused_and_noisy_ones_are_not(tmp_path):
    rng = np.random.default_rng(0)
    split = open_splits(Data(source="digits", val_examples=200)).test
    file, labels = tmp_path / "votes.npy", split.targets
    votes = rng.multinomial(51, np.full(10, 0.05) + 0.5 * np.eye(10)[labels])

    def read(given):
        np.save(file, given)
        return robustness.read_votes(file, split)

    np.testing.assert_array_equal(read(votes), votes)
    wrong = rng.random(len(split)) < 0.4  # as CIFAR-10N's worse labels
    noisy = np.where(wrong, rng.integers(0, 10, len(split)), labels)
    read(np.eye(10)[noisy])
    for other in (votes[rng.permutation(len(votes))], np.roll(votes, 1, axis=1)):
        with pytest.raises(
            UserError, match=r"the label of only \d+\.\d% of the images, by chance of (9|10)\.\d%"
        ) as caught:
            read(other)
        assert "\n" not in str(caught.value)
    claimed = b"(999999999999, 10), }"
    file.write_bytes(file.read_bytes().replace(b"(360, 10), }".ljust(len(claimed)), claimed))
    with pytest.raises(UserError, match="cannot be read as an array") as caught:
        robustness.read_votes(file, split)  # whose header claims more than the file has
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"--votes is for runs of config\.task\.name='classification'"):
        robustness.read_votes(file, SimpleNamespace(targets=np.zeros((4, 2), np.float32)))


def test_only_images_that_are_damaged_must_have_8_bits():
    headline = SimpleNamespace(name="top1_accuracy")
    network = SimpleNamespace(
        spec=SimpleNamespace(task=SimpleNamespace(evaluation=SimpleNamespace(headline=headline))),
        evaluate=lambda split, batch_size: {"top1_accuracy": 0.5, "loss": 1.0},
    )
    split = SimpleNamespace(dtype=np.dtype(np.uint16), image_shape=(8, 8, 3))
    assert [each.value for each in robustness.measure(network, split, [], [1], 0)] == [0.5]
    with pytest.raises(UserError, match="images of 8 bits, grey or RGB; this run has others: give --corruptions=none"):
        list(robustness.measure(network, split, ["fog"], [1], 0))


def test_lists_of_indices_are_said_to_be_of_another_order_in_sets_of_tensorflow():
    for title, told in (("tfds:cifar10:3.0.2 test", True), ("npz:cifar10.npz test", False)):
        assert bool(robustness.remark_on_order(SimpleNamespace(description=title))) == told


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 40 steps on the digits."""
    folder = tmp_path_factory.mktemp("robustness") / "run"
    digits.run(folder)
    return folder


def test_a_run_is_measured_undamaged_as_in_its_test_and_damaged_alike_in_any_batches(run):
    with small.programs_kept():
        network, _ = trained.load(run, "last", "", 1)
        from jaxcnn.train import assess

        split, _ = assess.open_split(network, run, "test", "")
        test = json.loads((run / "test.json").read_text())
        results = list(robustness.measure(network, split, ["contrast", "gaussian_noise"], [5], 0, 60))
        assert results[0].value == test["ema_top1_accuracy"]
        one = robustness.Corrupted(split, "gaussian_noise", 5, 0)
        whole = one.read(np.arange(40))
        assert np.array_equal(one.read(np.array([31, 7])), whole[[31, 7]])
        assert not np.array_equal(robustness.Corrupted(split, "gaussian_noise", 5, 1).read(np.arange(40)), whole)
        told = robustness.summary(results)
        assert told["of"] == 2 and told["mean"] == pytest.approx(np.mean([each.value for each in results[1:]]))
        assert robustness.summary([*results, robustness.Result(EXTRA[0], 5, 0.0, 0.0)])["mean"] == told["mean"]


def test_the_command_writes_a_table_its_figures_and_a_picture(run, tmp_path):
    votes = tmp_path / "votes.npy"
    np.save(votes, np.ones((360, 10)))
    out = tmp_path / "robust"
    code, output = runs.run(
        f"--workdir={run}", "--corruptions=contrast,jpeg_compression", "--severities=1,5", "--examples=120",
        f"--votes={votes}", f"--out={out}", module="jaxcnn.robustness",
    )  # fmt: skip
    assert code == 0, output
    assert "| contrast |" in output and "mean of 2 corruptions: accuracy" in output and "human votes" in output
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["examples"] == 120 and set(told["corruptions"]) == {"contrast", "jpeg_compression"}
    assert told["votes"]["entropy_of_votes"] == pytest.approx(np.log(10))
    assert out.with_suffix(".png").stat().st_size > 10_000 and "| severity 5 |" in out.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--corruptions=contrst"], "no such kind (did you mean 'contrast'?)"),
        (["--severities=6"], "numbers from 1 to 5"),
        (["--votes=nothing.npy"], "cannot be read as an array"),
        (["--leave_out=nothing.txt"], "cannot be read"),
    ],
)
def test_wrong_flags_are_one_line(run, flags, message):
    code, error = runs.run(f"--workdir={run}", *flags, module="jaxcnn.robustness")
    assert code == 2 and message in error and "Traceback" not in error
