"""Images in folders: layouts, conversions to RGB, sizes, broken files, and what the cache keeps."""

import io
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import Data, UserError
from jaxcnn.data import decode as decode_module
from jaxcnn.data.cache import cached_arrays
from jaxcnn.data.decode import Unreadable, decode, resize, stored_size
from jaxcnn.data.source import open_splits


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def encode(image, **options):
    file = io.BytesIO()
    image.save(file, **{"format": "PNG"} | options)
    return file.getvalue()


def picture(number, height=12, width=12):
    """Pixels [H, W, 3] that no other number has."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def make_folder(root, classes=("cat", "dog"), count=10, **size):
    """`count` PNG files per class, numbered through over all classes; returns their paths."""
    paths = []
    for name in classes:
        (root / name).mkdir(parents=True)
        for _ in range(count):
            paths.append(root / name / f"{len(paths):03d}.png")
            Image.fromarray(picture(len(paths) - 1, **size)).save(paths[-1])
    return paths


def folder(root, **fields):
    changes = {"train_split": "train[:80%]", "test_split": "train[80%:]", "val_examples": 4} | fields
    return Data(source=f"folder:{root}", **changes)


def everything(split):
    return split.read(np.arange(len(split)))


# Layouts


def test_one_folder_per_class_is_one_split_mixed_of_all_classes(tmp_path):
    make_folder(tmp_path / "set")
    splits = open_splits(folder(tmp_path / "set"))
    assert splits.class_names == ("cat", "dog")
    assert (len(splits.train), len(splits.val), len(splits.test)) == (12, 4, 4)
    assert splits.train.image_shape == (12, 12, 3)
    found = {
        (image.tobytes(), int(label))
        for split in (splits.train, splits.val, splits.test)
        for image, label in zip(everything(split), split.targets, strict=True)
    }
    assert found == {(picture(number).tobytes(), number // 10) for number in range(20)}
    assert set(splits.test.targets) == {0, 1}


def test_folders_without_a_test_split_are_refused_with_what_to_set(tmp_path):
    make_folder(tmp_path / "set" / "train")
    advice = r"train_split='train\[:80% by path\]' with config.data.test_split='train\[80%: by path\]'"
    with pytest.raises(UserError, match=advice):
        open_splits(Data(source=f"folder:{tmp_path / 'set'}"))


def test_a_new_image_moves_no_other_one(tmp_path):
    paths = make_folder(tmp_path / "set")
    data = folder(tmp_path / "set", train_split="train", test_split="", protocol="full")
    before = everything(open_splits(data).train)
    Image.fromarray(picture(99)).save(paths[0].with_name("new.png"))
    after = everything(open_splits(data).train)
    old = np.array([image.tobytes() != picture(99).tobytes() for image in after])
    assert len(after) == 21 and (after[old] == before).all()


def test_a_small_set_with_a_test_split_needs_no_other_flag(tmp_path):
    make_folder(tmp_path / "set" / "train", count=20)
    make_folder(tmp_path / "set" / "test", count=2)
    splits = open_splits(Data(source=f"folder:{tmp_path / 'set'}"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (36, 4, 4)
    with pytest.raises(UserError, match="val_examples=40 leaves none of the 40 examples"):
        open_splits(Data(source=f"folder:{tmp_path / 'set'}", val_examples=40))


def test_folders_of_splits_are_base_splits(tmp_path):
    for split, count in (("train", 6), ("Validation", 3), ("test", 2)):
        make_folder(tmp_path / "set" / split, count=count)
    splits = open_splits(Data(source=f"folder:{tmp_path / 'set'}", val_examples=2))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (12, 6, 4)
    assert len(open_splits(Data(source=f"folder:{tmp_path / 'set'}", val_examples=2, test_split="val")).test) == 6


def test_extensions_in_any_case_nested_folders_and_files_of_other_kinds(tmp_path):
    make_folder(tmp_path / "set", count=2)
    deep = tmp_path / "set" / "cat" / "2024" / "may"
    deep.mkdir(parents=True)
    Image.fromarray(picture(50)).save(deep / "A.JPEG", "JPEG")
    Image.fromarray(picture(51)).save(deep / "b.WebP", "WEBP", lossless=True)
    for name in ("notes.txt", "._A.JPEG", ".hidden.png"):
        (deep / name).write_text("not an image")
    (tmp_path / "set" / ".cache").mkdir()
    (tmp_path / "set" / "README.md").write_text("a set")
    splits = open_splits(folder(tmp_path / "set", train_split="train", test_split="", val_examples=1))
    assert len(splits.train) + len(splits.val) == 6 and splits.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "make, line",
    [
        (lambda root: None, "this folder does not exist"),
        (lambda root: root.mkdir(), "no sub-folders"),
        (lambda root: make_folder(root, classes=("cat",)), "only one class"),
        (lambda root: [make_folder(root), (root / "eel").mkdir()], "class 'eel' has no examples"),
        (lambda root: [(root / each).mkdir(parents=True) for each in "ab"], "has no images"),
        (
            lambda root: [make_folder(root / "train"), make_folder(root / "test", classes=("cat", "dog", "eel"))],
            "class 'eel' is in test, but not in train",
        ),
    ],
)
def test_folders_of_a_wrong_kind_are_refused_in_one_line(tmp_path, make, line):
    make(tmp_path / "set")
    with pytest.raises(UserError, match=line) as caught:
        open_splits(folder(tmp_path / "set", train_split="train", test_split=""))
    assert "\n" not in str(caught.value)


# Sizes


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_images_of_differing_sizes_become_squares_and_two_files_are_named(tmp_path, on_error):
    paths = make_folder(tmp_path / "set")
    Image.fromarray(picture(3, 15, 20)).save(paths[3])
    splits = open_splits(folder(tmp_path / "set", on_error=on_error))
    (note,) = (note for note in splits.notes if "differ in size" in note)
    assert str(paths[3]) in note and "15x20" in note and "12x12" in note and "image_size chooses" in note
    square = everything(open_splits(folder(tmp_path / "set", image_size=64)).train)
    assert square.shape[1:] == (64, 64, 3) and (everything(splits.train) == square).all()
    assert open_splits(folder(tmp_path / "set", image_size=10)).train.image_shape == (10, 10, 3)


def test_images_that_share_a_size_keep_it(tmp_path):
    make_folder(tmp_path / "set", height=6, width=9)
    assert open_splits(folder(tmp_path / "set")).train.image_shape == (6, 9, 3)


def test_resizing_is_the_shorter_side_to_size_and_a_crop_of_the_centre():
    pixels = picture(0, 40, 80)
    expected = np.asarray(Image.fromarray(pixels).resize((20, 10), Image.Resampling.BILINEAR))[:, 5:15]
    assert (resize(pixels, 10) == expected).all()
    assert (decode(encode(Image.fromarray(pixels)), 10) == expected).all()
    tall = Image.fromarray(pixels.swapaxes(0, 1).copy())
    assert np.abs(decode(encode(tall), 10).swapaxes(0, 1).astype(int) - expected).max() <= 1  # passes in other order
    assert decode(encode(Image.fromarray(picture(0, 3, 60_000))), 32).shape == (32, 32, 3)


def test_resizing_antialiases():
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None]
    # Away from the edge each output pixel is a weighted mean of whole periods: 127.5 within one rounding either way.
    assert np.abs(resize(board, 8)[1:-1, 1:-1].astype(float) - 127.5).max() <= 1.5


def test_an_image_of_the_asked_size_is_left_as_it_is():
    assert (decode(encode(Image.fromarray(picture(0))), 12) == picture(0)).all()


def test_large_jpegs_are_decoded_at_reduced_scale_to_nearly_the_same_pixels():
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    pixels = np.stack([np.broadcast_to(ramp, (800, 800))] * 3, axis=-1)
    data = encode(Image.fromarray(pixels), format="JPEG", quality=95)
    # A smooth image: only JPEG's quantisation and rounding differ, a few levels.
    assert np.abs(decode(data, 50).astype(int) - resize(pixels, 50).astype(int)).max() <= 4


# Conversions


def test_grey_becomes_rgb_of_equal_channels():
    grey = picture(0)[..., 0]
    assert (decode(encode(Image.fromarray(grey))) == grey[..., None]).all()
    assert (decode(encode(Image.fromarray(grey)), channels=1) == grey[..., None]).all()


def test_sixteen_bit_grey_is_scaled_to_eight():
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    assert decode(encode(Image.fromarray(values)))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_transparency_is_laid_over_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    expected = [[10, 20, 30], [255, 255, 255], [127, 127, 127]]
    assert decode(encode(Image.fromarray(rgba))).tolist() == [expected]
    grey_alpha = Image.fromarray(np.array([[[10, 255], [10, 0]]], np.uint8), mode="LA")
    assert decode(encode(grey_alpha)).tolist() == [[[10] * 3, [255] * 3]]


def test_palettes_with_and_without_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert decode(encode(image)).tolist() == [[[9, 8, 7], [200, 100, 50]]]
    assert decode(encode(image, transparency=1)).tolist() == [[[9, 8, 7], [255, 255, 255]]]


def test_one_bit_images():
    image = Image.fromarray(np.array([[True, False]]))
    assert decode(encode(image)).tolist() == [[[255] * 3, [0] * 3]]


def test_cmyk_jpeg():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    red = decode(encode(image, format="JPEG", quality=100)).reshape(-1, 3).mean(axis=0)
    assert np.abs(red - [255, 0, 0]).max() <= 3  # JPEG rounding


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    data = encode(Image.fromarray(picture(0, 4, 8)), exif=exif)
    assert (decode(data) == np.rot90(picture(0, 4, 8), -1)).all()
    assert stored_size(data) == (8, 4)


def test_animations_give_their_first_frame():
    frames = [Image.fromarray(picture(number)) for number in (0, 1)]
    data = encode(frames[0], format="WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert (decode(data) == picture(0)).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_truncated_and_foreign_bytes_are_unreadable(kind):
    data = encode(Image.fromarray(picture(0, 64, 64)), format=kind)
    decode(data)
    for bad in (data[: len(data) // 2], data[:10], b"", b"hello"):
        with pytest.raises(Unreadable):
            decode(bad)


# Broken files


@pytest.fixture
def broken(tmp_path):
    """Two classes of ten, of which three files are bad."""
    paths = make_folder(tmp_path / "set")
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    paths[11].write_bytes(b"")
    paths[15].unlink()
    paths[15].symlink_to(tmp_path / "nowhere")
    return paths


@pytest.mark.parametrize("fields", [{}, {"image_size": 12}, {"image_size": 12, "loader": "stream"}])
def test_an_unreadable_image_is_named(tmp_path, broken, fields):
    with pytest.raises(UserError, match=r"cannot read image .*set/.*png: .*config.data.on_error='skip'") as caught:
        splits = open_splits(folder(tmp_path / "set", **fields))
        for split in (splits.train, splits.val, splits.test):
            everything(split)
    assert any(str(broken[number]) in str(caught.value) for number in (2, 11, 15))


def test_skip_leaves_unreadable_images_out_and_counts_them(tmp_path, broken, monkeypatch):
    data = folder(tmp_path / "set", on_error="skip", train_split="train", test_split="", val_examples=2)
    splits = open_splits(data)
    assert len(splits.train) + len(splits.val) == 17
    note = splits.notes[0]
    assert "skipped 3 unreadable images" in note and all(str(broken[number]) in note for number in (2, 11, 15))
    images = {image.tobytes() for split in (splits.train, splits.val) for image in everything(split)}
    assert images == {picture(number).tobytes() for number in range(20) if number not in (2, 11, 15)}

    with monkeypatch.context() as patch:
        patch.setattr("jaxcnn.data.encoded.decode_for", None)  # the second start decodes nothing
        again = open_splits(data)
    assert again.notes == splits.notes and (everything(again.train) == everything(splits.train)).all()
    Image.fromarray(picture(2)).save(broken[2])  # a mended file is seen
    assert "skipped 2 unreadable images" in open_splits(data).notes[0]


def test_a_file_that_could_not_be_opened_is_tried_again_at_the_next_start(tmp_path, monkeypatch):
    make_folder(tmp_path / "set")
    data = folder(tmp_path / "set", on_error="skip")
    read_bytes = type(tmp_path).read_bytes

    def refuse(path):
        if path.name == "003.png":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "read_bytes", refuse)
        assert "Permission denied" in open_splits(data).notes[0]
    assert not any("unreadable" in note for note in open_splits(data).notes)


def test_nothing_readable_at_all(tmp_path):
    for path in make_folder(tmp_path / "set", count=2):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="has no readable image"):
        open_splits(folder(tmp_path / "set", on_error="skip"))


# The cache of decoded pixels


def test_a_damaged_cache_is_rebuilt_and_an_unwritable_one_only_noted(tmp_path, cache, monkeypatch):
    paths = make_folder(tmp_path / "set")
    data = folder(tmp_path / "set")
    expected = everything(open_splits(data).train)
    (pixels,) = cache.glob("pixels-*.npy")
    whole = pixels.read_bytes()
    for damaged in (whole[:-500], whole[:300] + bytes([whole[300] ^ 1]) + whole[301:], b"", b"\x93NUMPY"):
        pixels.write_bytes(damaged)
        assert (everything(open_splits(data).train) == expected).all()
        assert pixels.read_bytes() == whole
    assert not list(cache.glob("*.partial"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "file" / "below"))
    splits = open_splits(data)
    assert (everything(splits.train) == expected).all() and "cannot keep decoded images" in splits.notes[0]
    assert len(paths) == 20


def test_a_full_disk_leaves_no_cache_and_no_scrap(tmp_path, cache, monkeypatch):
    make_folder(tmp_path / "set")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    splits = open_splits(folder(tmp_path / "set"))
    assert len(everything(splits.train)) == 12 and "No space left on device" in splits.notes[0]
    assert list(cache.iterdir()) == []


def test_the_cache_is_built_once_however_many_want_it(tmp_path):
    built = []

    def build():
        built.append(1)
        time.sleep(0.1)
        return {"a": np.arange(3)}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cached_arrays(tmp_path / "a.npz", build), range(4)))
    assert len(built) == 1 and all(arrays["a"].tolist() == [0, 1, 2] for arrays in found)


def test_sets_beyond_resident_gib_and_streamed_ones_are_not_kept_decoded(tmp_path, cache):
    make_folder(tmp_path / "set")
    kept = everything(open_splits(folder(tmp_path / "set")).train)
    (pixels,) = cache.glob("pixels-*.npy")
    pixels.unlink()
    for fields in ({"resident_gib": 1e-9}, {"loader": "stream"}):
        assert (everything(open_splits(folder(tmp_path / "set", **fields)).train) == kept).all()
    assert not list(cache.glob("pixels-*.npy"))


def test_all_formats_are_known_to_pillow():
    assert set(decode_module.FORMATS) <= set(Image.OPEN)
