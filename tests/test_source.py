"""Sources that are arrays, slices, holding out, and the statistics of a split."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

from jaxcnn.config import ConfigError, Data, Task, UserError
from jaxcnn.data import class_names, examples, resident
from jaxcnn.data.examples import map_in_threads
from jaxcnn.data.image_statistics import image_statistics
from jaxcnn.data.slices import resolve
from jaxcnn.data.source import open_splits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))


def everything(split):
    return split.read(np.arange(len(split)))


def save_npz(path, **changes):
    """A set of 30 + 8 images of 4x5x3 and three classes; `changes` replace arrays, None takes them away."""
    random = np.random.default_rng(0)
    arrays = {
        "train_images": random.integers(0, 256, (30, 4, 5, 3), np.uint8),
        "train_labels": np.arange(30) % 3,
        "test_images": random.integers(0, 256, (8, 4, 5, 3), np.uint8),
        "test_labels": np.arange(8) % 3,
    } | changes
    arrays = {key: value for key, value in arrays.items() if value is not None}
    np.savez(path, **arrays)
    return arrays


def npz(path, **fields):
    return Data(**{"source": f"npz:{path}", "val_examples": 6} | fields)


# Digits


def test_digits_are_the_1797_of_scikit_learn_scaled_to_bytes_and_cut_evenly_by_class():
    from sklearn.datasets import load_digits

    splits = open_splits(Data(source="digits", protocol="full"))
    assert (len(splits.train), len(splits.test), splits.val) == (1437, 360, None)
    assert splits.train.image_shape == (8, 8, 1)
    images = np.concatenate([everything(splits.train), everything(splits.test)])
    assert images.dtype == np.uint8 and images.max() == 255
    ours = sorted(np.rint(image.ravel() / 255 * 16).astype(int).tolist() for image in images)
    assert ours == sorted(image.ravel().astype(int).tolist() for image in load_digits().images)
    share = np.bincount(splits.test.targets) / (np.bincount(splits.train.targets) + np.bincount(splits.test.targets))
    assert np.abs(share - 0.2).max() < 1 / 170  # each class has at least 174 examples, and is cut to the nearest one


def test_digits_can_be_resized():
    splits = open_splits(Data(source="digits", protocol="full", image_size=20))
    assert splits.train.image_shape == (20, 20, 1)
    assert splits.train.read(np.array([3, 1])).shape == (2, 20, 20, 1)


# Synthetic


def test_synthetic_defaults_and_its_own_test_split():
    splits = open_splits(Data(source="synthetic", val_examples=24))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (1000, 24, 256)
    assert splits.train.image_shape == (32, 32, 3) and len(splits.class_names) == 10
    assert not (everything(splits.test)[:16] == splits.train.read(np.arange(16))).all(axis=(1, 2, 3)).any()


def test_synthetic_images_depend_on_their_index_alone():
    splits = open_splits(Data(source="synthetic:6x5x2:4:64", protocol="full"))
    images = everything(splits.train)
    order = np.random.default_rng(0).permutation(64)
    assert (splits.train.read(order) == images[order]).all()
    longer = open_splits(Data(source="synthetic:6x5x2:4:128", protocol="full"))
    assert (longer.train.read(np.arange(64)) == images).all()


def test_synthetic_images_are_the_same_everywhere_and_for_ever():
    split = open_splits(Data(source="synthetic:4x4x1:2:8", protocol="full")).train
    assert split.read(np.array([5]))[0, 0, :, 0].tolist() == [116, 192, 118, 58]


def test_synthetic_may_be_longer_than_memory():
    split = open_splits(Data(source="synthetic:64x64x3:10:2000000", protocol="full")).train  # 24 GB of pixels
    assert split.read(np.array([1_999_999])).shape == (1, 64, 64, 3)


def test_synthetic_can_be_learnt_from_class_means():
    splits = open_splits(Data(source="synthetic:8x8x3:5:300", protocol="full"))
    images, labels = everything(splits.train).astype(float), splits.train.targets
    means = np.stack([images[labels == label].mean(axis=0) for label in range(5)])
    distance = ((everything(splits.test)[:, None] - means) ** 2).sum(axis=(2, 3, 4))
    assert (distance.argmin(axis=1) == splits.test.targets).mean() == 1.0


@pytest.mark.parametrize("text", ["32x32", "0x4x3", "8x8x3:1", "8x8x3:10:2", "8x8x3:ten"])
def test_synthetic_refuses_what_it_cannot_make(text):
    with pytest.raises(UserError, match=f"synthetic:{text}"):
        open_splits(Data(source=f"synthetic:{text}"))


# Arrays in a file


def test_npz_gives_its_arrays(tmp_path):
    arrays = save_npz(tmp_path / "a.npz", names=np.array(["ant", "bee", "cat"]))
    splits = open_splits(npz(tmp_path / "a.npz", protocol="full"))
    assert splits.class_names == ("ant", "bee", "cat")
    assert (everything(splits.train) == arrays["train_images"]).all()
    assert (splits.test.targets == arrays["test_labels"]).all() and splits.test.targets.dtype == np.int32


@pytest.mark.parametrize(
    "images, labels", [("x_{}", "y_{}"), ("{}_x", "{}_y"), ("{}_data", "{}_targets"), ("{}_images", "{}_labels")]
)
def test_npz_knows_the_usual_names(tmp_path, images, labels):
    arrays = save_npz(tmp_path / "a.npz")
    renamed = {images.format(split): arrays[f"{split}_images"] for split in ("train", "test")}
    renamed |= {labels.format(split): arrays[f"{split}_labels"][:, None] for split in ("train", "test")}
    np.savez(tmp_path / "b.npz", **renamed)
    splits = open_splits(npz(tmp_path / "b.npz"))
    assert (everything(splits.test) == arrays["test_images"]).all()
    assert (splits.test.targets == arrays["test_labels"]).all()


def test_npz_of_grey_images_without_a_channel_axis(tmp_path):
    save_npz(tmp_path / "a.npz", train_images=np.zeros((30, 7, 9), np.uint8), test_images=np.zeros((8, 7, 9), np.uint8))
    assert open_splits(npz(tmp_path / "a.npz")).train.image_shape == (7, 9, 1)


def test_npz_without_test_split_says_how_to_slice_one(tmp_path):
    save_npz(tmp_path / "a.npz", test_images=None, test_labels=None)
    with pytest.raises(UserError, match=r"no test split.*test_split='train\[80%:\]'"):
        open_splits(npz(tmp_path / "a.npz"))
    splits = open_splits(npz(tmp_path / "a.npz", train_split="train[:80%]", test_split="train[80%:]"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (18, 6, 6)
    assert open_splits(npz(tmp_path / "a.npz", test_split="")).test is None


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"train_images": np.zeros((30, 4, 5, 3), np.float32)}, "'train_images' is float32, but images must be uint8"),
        ({"train_images": np.zeros((30, 3, 9, 9), np.uint8)}, "channels first"),
        ({"train_images": np.zeros((30, 9), np.uint8)}, r"images must be \[N, H, W, C\]"),
        ({"train_images": np.zeros((29, 4, 5, 3), np.uint8)}, "29 images, but 'train_labels' has 30 labels"),
        ({"train_labels": np.arange(30) % 3 / 1.0}, "labels must be class numbers"),
        ({"train_labels": np.eye(3, dtype=int)[np.arange(30) % 3]}, "labels must be class numbers"),
        ({"train_labels": np.arange(30) % 3 - 1}, "label -1 at index 0 is out of range; the 3 classes"),
        ({"train_labels": np.full(30, 2**40)}, "has label 1099511627776, but only"),
        ({"names": np.array(["a", "b"])}, "label 2 at index 2 is out of range; the 2 classes are 0 to 1"),
        ({"names": np.array(["a", "b", "c", "d"])}, "class 'd' has no examples"),
        ({"train_labels": np.zeros(30, int), "test_labels": np.zeros(8, int)}, "only one class"),
        ({"train_labels": None, "test_labels": None}, "no arrays of images and labels with known names"),
        ({"test_images": np.zeros((8, 6, 6, 3), np.uint8)}, "set config.data.image_size"),
        ({"train_labels": np.array([{}] * 30)}, "holds Python objects"),
        ({"train_images": np.zeros((0, 4, 5, 3), np.uint8), "train_labels": np.zeros(0, int)}, "selects no examples"),
    ],
)
def test_npz_of_a_wrong_kind_is_refused_in_one_line(tmp_path, changes, line):
    save_npz(tmp_path / "a.npz", **changes)
    with pytest.raises(UserError, match=line) as caught:
        open_splits(npz(tmp_path / "a.npz"))
    assert "\n" not in str(caught.value)


def test_npz_that_is_missing_cut_off_or_something_else(tmp_path):
    with pytest.raises(UserError, match="this file does not exist"):
        open_splits(npz(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match=r"not an \.npz file"):
        open_splits(npz(tmp_path / "text.npz"))
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"not an \.npz file"):
        open_splits(npz(tmp_path / "single.npy"))
    save_npz(tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:600])
    with pytest.raises(UserError, match=r"not an \.npz file"):
        open_splits(npz(tmp_path / "cut.npz"))
    (tmp_path / "flipped.npz").write_bytes(whole[:500] + b"\xff" * 9 + whole[509:])
    with pytest.raises(UserError, match="cannot be read"):
        open_splits(npz(tmp_path / "flipped.npz"))


def test_unknown_sources_are_refused_with_the_nearest_right_one():
    with pytest.raises(UserError, match=r"unknown source 'digit' \(did you mean 'digits'\?\)"):
        open_splits(Data(source="digit"))
    with pytest.raises(UserError, match="digits takes no argument"):
        open_splits(Data(source="digits:8x8"))


def test_a_path_alone_is_told_which_source_reads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "m.csv").touch()
    for name, meant in (("photos", "folder:photos"), ("m.csv", "csv:m.csv"), ("no.npz", "npz:no.npz")):
        with pytest.raises(UserError, match=rf"unknown source '{name}' \(did you mean '{meant}'\?\); choose"):
            open_splits(Data(source=name))
    with pytest.raises(UserError, match=r"unknown source 'nothing'; choose"):
        open_splits(Data(source="nothing"))


def test_a_weight_of_no_class_is_told_before_an_image_is_read():
    def opened(name):
        raise AssertionError("a split was opened")

    source = examples.Source("a set", ("cat", "dog"), ("train", "test"), opened)
    with pytest.raises(ConfigError, match=r"weights_by_name names 'dgo', which is no class \(did you mean 'dog'"):
        class_names.given(source, Task(weights_by_name=(("cat", 2.0), ("dgo", 2.0))))
    with pytest.raises(ConfigError, match="weights_by_name names 'eleven'"):
        open_splits(Data(source="digits"), Task(weights_by_name=(("eleven", 2.0),)))


# Slices


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("train", range(1000)),
        ("train[:90%]", range(900)),
        ("train[10%:20%]", range(100, 200)),
        ("train[990:]", range(990, 1000)),
        ("train[-10:]", range(990, 1000)),
        ("train[:-99%]", range(10)),
        ("train[:3] + train[-2:]", [0, 1, 2, 998, 999]),
    ],
)
def test_slices_mean_what_tfds_means(expression, expected):
    parts = resolve(expression, "key", ("train", "test"), {"train": 1000, "test": 7}.__getitem__)
    assert np.concatenate([indices for _, indices in parts]).tolist() == list(expected)


@pytest.mark.parametrize("count", [7, 9, 101, 1797, 50000])
def test_percentages_tile_a_split_without_gap(count):
    def cut(expression):
        return resolve(expression, "key", ("train",), lambda _: count)[0][1]

    cuts = [cut(f"train[{k}%:{k + 25}%]") for k in range(0, 100, 25)]
    assert (np.concatenate(cuts) == np.arange(count)).all()


@pytest.mark.parametrize(
    "expression, line",
    [
        ("train[", "not a split slice"),
        ("train[5]", "not a split slice"),
        ("", "not a split slice"),
        ("tran", r"the source has no split 'tran' \(did you mean 'train'\?\); it has: train, test"),
        ("train[:2000]", "2000 is more than the 1000 examples"),
        ("train[:120%]", "more than 100%"),
        ("train[5:5]", "selects no examples"),
        ("train[:10]+train[9:12]", "selects 1 examples twice"),
    ],
)
def test_bad_slices_are_refused(expression, line):
    with pytest.raises(UserError, match=line):
        resolve(expression, "key", ("train", "test"), {"train": 1000, "test": 7}.__getitem__)


def test_a_split_joined_of_two_reads_both(tmp_path):
    arrays = save_npz(tmp_path / "a.npz")
    data = npz(tmp_path / "a.npz", train_split="train[:20]+test", test_split="train[20:]", protocol="full")
    splits = open_splits(data)
    images = np.concatenate([arrays["train_images"][:20], arrays["test_images"]])
    order = np.random.default_rng(0).permutation(28)
    assert (splits.train.read(order) == images[order]).all()
    assert (splits.train.targets == np.concatenate([np.arange(20) % 3, np.arange(8) % 3])).all()


def test_train_and_test_may_not_overlap(tmp_path):
    save_npz(tmp_path / "a.npz")
    with pytest.raises(UserError, match="share 2 examples"):
        open_splits(npz(tmp_path / "a.npz", train_split="train[:20]", test_split="train[18:]"))


# Holding out


def test_validation_is_held_out_by_the_split_seed_and_nothing_is_lost_or_shared(tmp_path):
    arrays = save_npz(tmp_path / "a.npz")
    splits = open_splits(npz(tmp_path / "a.npz"))
    train, val = everything(splits.train).reshape(24, -1), everything(splits.val).reshape(6, -1)
    assert len(np.unique(np.concatenate([train, val]), axis=0)) == 30
    assert (splits.train.place == np.sort(splits.train.place)).all()
    assert (splits.val.targets == arrays["train_labels"][splits.val.place]).all()
    again, other = open_splits(npz(tmp_path / "a.npz")), open_splits(npz(tmp_path / "a.npz", split_seed=1))
    assert (again.val.place == splits.val.place).all() and (other.val.place != splits.val.place).any()
    assert (
        "6 held out by split_seed=0" in splits.train.description
        and "6 held out by split_seed=0" in splits.val.description
    )


def test_the_full_protocol_holds_nothing_out(tmp_path):
    save_npz(tmp_path / "a.npz")
    splits = open_splits(npz(tmp_path / "a.npz", protocol="full"))
    assert splits.val is None and len(splits.train) == 30 and "held out" not in splits.train.description


def test_holding_out_everything_is_refused(tmp_path):
    save_npz(tmp_path / "a.npz")
    with pytest.raises(UserError, match="val_examples=30 leaves none of the 30 examples"):
        open_splits(npz(tmp_path / "a.npz", val_examples=30))


# Statistics


def test_statistics_are_those_of_all_pixels_and_independent_of_reading(tmp_path):
    splits = open_splits(Data(source="synthetic:9x7x3:10:2500", protocol="full"))
    mean, std = image_statistics(splits.train)
    pixels = everything(splits.train).astype(np.float64) / 255
    # float64 sums of 157,500 values are exact to far less than half a float32 step; one step allowed for rounding
    np.testing.assert_array_max_ulp(mean, pixels.mean(axis=(0, 1, 2)).astype(np.float32), 1)
    np.testing.assert_array_max_ulp(std, pixels.std(axis=(0, 1, 2)).astype(np.float32), 1)
    order = np.random.default_rng(0).permutation(2500)
    shuffled = dataclasses.replace(splits.train.parts[0], read=lambda i: splits.train.parts[0].read(order[i]))
    same = open_splits(Data(source="synthetic:9x7x3:10:2500", protocol="full")).train
    same.parts = (shuffled,)
    for workers in (1, 3):
        again = image_statistics(same, workers)
        assert (again[0] == mean).all() and (again[1] == std).all()


def test_a_constant_channel_has_deviation_one(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 5, 3), np.uint8)
    images[..., 1] = 51
    save_npz(tmp_path / "a.npz", train_images=images)
    mean, std = image_statistics(open_splits(npz(tmp_path / "a.npz", protocol="full")).train)
    assert mean[1] == np.float32(0.2) and std[1] == 1


def test_mapping_in_threads_keeps_order_and_stops_at_an_error():
    assert list(map_in_threads(lambda x: x * x, range(100), 3)) == [x * x for x in range(100)]
    begun = []

    def fail_at_five(x):
        begun.append(x)
        return 1 / (x - 5)

    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(fail_at_five, range(10_000), 2))
    assert len(begun) < 100


def test_the_resident_loader_holds_a_set_once_while_it_reads_it(monkeypatch):
    split = open_splits(Data(source="synthetic:32x32x3:4:5000", protocol="full")).train
    images = np.zeros((len(split), *split.image_shape), np.uint8)
    split.parts = (dataclasses.replace(split.parts[0], read=lambda indices: images[indices]),)
    monkeypatch.setattr(resident, "put", lambda value, sharding: value)
    monkeypatch.setattr(examples, "_CHUNK_BYTES", 2**20)
    monkeypatch.setattr(examples, "worker_count", lambda workers=0: 2)
    tracemalloc.start()
    try:
        loaded = resident.load(split, None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (loaded.image == images).all()
    assert peak < images.nbytes + 7 * 2**20  # two chunks at work, four that wait, and one that is copied
