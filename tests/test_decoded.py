"""Decoded images kept in a file (`config.data.cache`): a run's bits never change, whatever happens to the file."""

import dataclasses
import errno
import os
import shutil
import types

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import ConfigError, Data, UserError
from jaxcnn.data import cache_limit, decoded, encoded, resident
from jaxcnn.data.order import example_index
from jaxcnn.data.source import open_splits
from jaxcnn.data.stream import stream
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import loaders, workdir
from tests import digits, runs, small

COUNT, SIDE = 24, 9
BYTES = SIDE * SIDE * 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """JPEGs of differing sizes, in two classes."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        path = root / "ab"[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 40, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(autouse=True)
def users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch):
    """The number of images that are decoded, as a list of ones."""
    counted, decode_for = [], encoded.decode_for
    monkeypatch.setattr(encoded, "decode_for", lambda *args: counted.append(1) or decode_for(*args))
    return counted


def data_of(photos, keep="", **fields):
    changes = {"protocol": "full", "test_split": "", "image_size": SIDE, "loader": "stream"} | fields
    return Data(source=f"folder:{photos}", train_split="train", cache=str(keep), **changes)


def split_of(photos, keep="", **fields):
    return open_splits(data_of(photos, keep, **fields)).train


def note_of(photos, keep, **fields):
    """What a run says of the images that it keeps."""
    (note,) = [each for each in open_splits(data_of(photos, keep, **fields)).notes if "decoded images" in each]
    return note


def everything(split):
    return split.read(np.arange(len(split)))


def file_in(folder):
    (path,) = folder.glob("decoded-*.bin")
    return path


@pytest.mark.parametrize(
    "fields",
    [{}, {"resize": "pad"}, {"channels": 1}, {"dtype": "float32"}, {"loader": "auto"}, {"on_error": "skip"}],
    ids=str,
)
def test_pixels_targets_and_fingerprint_are_those_of_a_run_that_keeps_nothing(photos, tmp_path, fields):
    plain = split_of(photos, **fields)
    expected = everything(plain)
    for _ in ("decoded and written", "read from the file"):
        kept = split_of(photos, tmp_path / "kept", **fields)
        for _ in range(2):
            assert everything(kept).dtype == expected.dtype and everything(kept).tobytes() == expected.tobytes()
        assert (kept.targets == plain.targets).all() and kept.read(np.arange(0)).shape == (0, *kept.image_shape)
        assert kept.parts[0].content().fingerprint == plain.parts[0].content().fingerprint


def test_both_loaders_give_the_batches_of_a_run_that_keeps_nothing(photos, tmp_path):
    plain, kept = split_of(photos), split_of(photos, tmp_path / "kept")

    def order(step):
        return example_index(1, step, np.arange(8), 8, COUNT)

    with stream(kept, order, 0, 9, 3) as batches:
        for step, (images, labels, indices) in enumerate(batches):
            assert images.tobytes() == plain.read(order(step)).tobytes()
            assert (labels == plain.targets[indices]).all()
    one = meshes.replicated(meshes.make_mesh(1))
    on_device = [jax.device_get(resident.load(split, one)) for split in (plain, kept)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *on_device))


def test_a_run_has_the_same_bits_whether_it_keeps_its_images_or_not(photos, tmp_path):
    pytest.importorskip("tensorflow")
    plain = data_of(photos, image_size=8)
    for name, data in (("plain", plain), ("kept", dataclasses.replace(plain, cache=str(tmp_path / "files")))):
        digits.run(tmp_path / name, data=data, global_batch_size=8, run={"steps": 4}, norm={"group_size": 8})
    assert file_in(tmp_path / "files").exists()
    ends = [runs.kept(tmp_path / name) for name in ("plain", "kept")]
    assert [end.pop("config.json")["data"]["cache"] == "" for end in ends] == [True, False]
    assert ends[0] == ends[1] and ends[0]["checkpoints"] and ends[0]["records"]


def test_an_image_is_decoded_once_however_often_runs_are_killed(photos, tmp_path, reads):
    expected = everything(split_of(photos))
    reads.clear()
    for begin in range(0, COUNT, 5):  # each run dies after five images
        assert f"({begin} of {COUNT} so far)" in note_of(photos, tmp_path / "kept")
        chosen = np.arange(begin, min(begin + 5, COUNT))
        assert (split_of(photos, tmp_path / "kept").read(chosen) == expected[chosen]).all()
    assert (everything(split_of(photos, tmp_path / "kept")) == expected).all() and len(reads) == COUNT
    note = note_of(photos, tmp_path / "kept")
    assert note.endswith("bin: 0.00 GiB (all)") and str(file_in(tmp_path / "kept")) in note


def test_processes_that_fill_a_file_together_decode_each_image_once(photos, tmp_path, reads):
    expected = everything(split_of(photos))
    reads.clear()
    one, other = split_of(photos, tmp_path / "kept"), split_of(photos, tmp_path / "kept")
    even, odd = np.arange(0, COUNT, 2), np.arange(1, COUNT, 2)
    assert (one.read(even) == expected[even]).all() and (other.read(odd) == expected[odd]).all()
    assert (everything(one) == expected).all() and (everything(other) == expected).all()
    assert len(reads) == COUNT


def damages(whole: bytes, first: int) -> dict[str, bytes]:
    """Forms of a file that is not as it was written; `first` is the place of the first pixel."""
    return {
        "a pixel": whole[: first + 7] + bytes([whole[first + 7] ^ 1]) + whole[first + 8 :],
        "a mark": whole[:4096] + bytes([whole[4096] ^ 1]) + whole[4097:],
        "marks before pixels": whole[:first] + bytes(len(whole) - first),
        "cut short": whole[: first + 5 * BYTES + 3],
        "no marks": whole[:4100],
        "header": b"x" + whole[1:],
        "empty": b"",
        "another file": b"something else",
    }


@pytest.mark.parametrize("what", damages(bytes(10_000), 8192))
def test_a_damaged_file_changes_no_pixel_and_becomes_whole_again(photos, tmp_path, caplog, what):
    expected = everything(split_of(photos, tmp_path / "kept"))
    path = file_in(tmp_path / "kept")
    whole = path.read_bytes()
    assert len(whole) == 8192 + COUNT * BYTES
    path.write_bytes(damages(whole, 8192)[what])
    kept = split_of(photos, tmp_path / "kept")
    for _ in range(2):
        assert (everything(kept) == expected).all()
    assert path.read_bytes() == whole
    assert len([each for each in caplog.records if "damaged" in each.message]) == (what not in ("empty", "no marks"))


def test_a_file_that_is_cut_short_under_a_run_does_not_end_it(photos, tmp_path):
    kept = split_of(photos, tmp_path / "kept")
    expected = everything(kept)
    os.truncate(file_in(tmp_path / "kept"), 8192 + 3)
    assert (everything(kept) == expected).all()


def test_all_that_decides_the_pixels_decides_the_file(photos, tmp_path, monkeypatch):
    keep = tmp_path / "kept"

    def names():
        return {path.name for path in keep.iterdir()}

    def is_new(*args, **fields) -> bool:
        before = names()
        split_of(*args, **fields)
        return len(names() - before) == 1

    keep.mkdir()
    assert is_new(photos, keep) and not is_new(photos, keep)
    assert not is_new(photos, keep, workers=3, resident_gib=9)  # these change no pixel
    for fields in ({"image_size": 8}, {"resize": "pad"}, {"channels": 1}, {"dtype": "float32"}, {"grey16_max": 4095}):
        assert is_new(photos, keep, **fields)
    other = shutil.copytree(photos, tmp_path / "photos")
    assert is_new(other, keep)
    os.utime(next(other.rglob("*.jpg")), (1, 1))
    assert is_new(other, keep)
    monkeypatch.setattr(encoded.PIL, "__version__", "0.0")
    assert is_new(photos, keep)


def without_writing(monkeypatch):
    """Files can only be read, as on a read-only file system."""
    os_open = os.open

    def refuse(path, flags, *rest, **more):
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return os_open(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)


def test_a_file_that_may_not_be_written_is_read_if_it_has_all_images(photos, tmp_path, monkeypatch, reads):
    expected = everything(split_of(photos, tmp_path / "kept"))
    reads.clear()
    without_writing(monkeypatch)
    assert (everything(split_of(photos, tmp_path / "kept")) == expected).all() and not reads


@pytest.mark.parametrize("images", [0, 5])
def test_a_folder_that_cannot_be_written_stops_the_run_if_it_was_named_and_is_noted_if_not(
    photos, tmp_path, users_cache, monkeypatch, images
):
    expected = everything(split_of(photos))
    for keep in (tmp_path / "kept", "auto") if images else ():
        split_of(photos, keep).read(np.arange(images))
    without_writing(monkeypatch)
    why = f"lacks {COUNT - images} images, and cannot be written" if images else "Read-only file system"
    with pytest.raises(
        UserError, match=rf"^config\.data\.cache='.*kept': cannot keep .*{why}; name another"
    ) as refused:
        split_of(photos, tmp_path / "kept")
    assert "\n" not in str(refused.value)
    note = note_of(photos, "auto")
    assert why in note and "decoded in every epoch" in note
    assert (everything(split_of(photos, "auto")) == expected).all()


def test_a_file_in_place_of_the_folder_is_refused_in_one_line(photos, tmp_path):
    (tmp_path / "kept").write_text("")
    with pytest.raises(UserError, match=r"cannot keep the decoded images .*kept: File exists; name another"):
        split_of(photos, tmp_path / "kept")


def test_a_disk_without_room_is_told_before_anything_is_written(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=COUNT * BYTES - 1))
    with pytest.raises(UserError, match=r"they take 0\.00 GiB more, and the disk has 0\.00 GiB free; name another"):
        split_of(photos, tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=COUNT * BYTES))
    everything(split_of(photos, tmp_path / "kept"))
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=0))
    split_of(photos, tmp_path / "kept")  # nothing more to write


def test_a_disk_that_fills_up_during_a_run_costs_only_time_and_one_line(photos, tmp_path, monkeypatch, caplog):
    kept = split_of(photos, tmp_path / "kept")
    expected, pwrite, left = everything(split_of(photos)), os.pwrite, [7]

    def full(*args):
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        return pwrite(*args)

    monkeypatch.setattr(os, "pwrite", full)
    for _ in range(2):
        assert (everything(kept) == expected).all()
    (line,) = [each.getMessage() for each in caplog.records]
    assert "No space left on device" in line and "decoded in every epoch" in line
    assert "(3 of 24 so far)" in note_of(photos, tmp_path / "kept")  # a pixel and a mark each


def test_the_users_cache_folder_has_its_limit_and_a_folder_of_your_own_has_none(
    photos, tmp_path, users_cache, monkeypatch
):
    monkeypatch.setenv(cache_limit.SWITCH, "1e-6")
    assert "the folder's limit is 1e-06 (JAXCNN_CACHE_GIB)" in note_of(photos, "auto")
    assert not list(users_cache.glob("*.bin"))
    everything(split_of(photos, tmp_path / "kept"))
    monkeypatch.setenv(cache_limit.SWITCH, "1")
    kept = split_of(photos, "auto")
    expected = everything(kept)
    (file,) = cache_limit.kept(users_cache)
    assert file.kind == cache_limit.PIXELS and file.size == 8192 + COUNT * BYTES
    assert cache_limit.remove([file]) == []  # in use
    del kept
    assert cache_limit.remove([file]) == [file]
    assert (everything(split_of(photos, "auto")) == expected).all()


def test_a_run_may_begin_to_keep_its_images_when_it_is_resumed():
    def told(**fields):
        before = small.configs.to_dict(small.config())
        return "\n".join(workdir.differences(before, small.config(data=fields), "the workdir", workdir.MAY_CHANGE))

    assert "data.cache" not in told(cache="auto") and "data.image_size" in told(image_size=8)


@pytest.mark.parametrize("source", ["digits", "synthetic", "npz:a.npz", "shapes:8:8"])
def test_sources_without_image_files_have_nothing_to_keep(source):
    with pytest.raises(ConfigError, match=r"keeps decoded image files, but .* has none; leave it empty"):
        small.config(data={"source": source, "cache": "auto"})


def test_kept_images_are_streamed_without_tensorflow(photos, tmp_path, monkeypatch):
    needed = []
    monkeypatch.setattr(loaders, "need", lambda *args: needed.append(args))
    kept = data_of(photos, tmp_path / "kept")
    assert loaders.choose_loader(kept, [open_splits(kept).train])[0] == "stream" and not needed
    assert loaders.choose_loader(data_of(photos), [split_of(photos)])[0] == "stream" and needed
