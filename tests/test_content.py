"""Checksums of what is in a set: the same data has the same ones wherever it lies, other data others."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import Data
from jaxcnn.data import content, examples
from jaxcnn.data.source import open_splits
from tests.test_folder import folder, make_folder, picture
from tests.test_source import npz, save_npz
from tests.test_tfds_source import make_set, pets


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))


def test_a_moved_or_copied_folder_has_the_same_fingerprint_and_another_picture_under_the_same_name_has_not(tmp_path):
    paths = make_folder(tmp_path / "set")
    first = open_splits(folder(tmp_path / "set")).fingerprints()
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert open_splits(folder(tmp_path / "copy")).fingerprints() == first
    Image.fromarray(picture(99)).save(paths[3])
    assert open_splits(folder(tmp_path / "set")).fingerprints() != first


def test_checksums_of_files_are_computed_once(tmp_path, monkeypatch):
    paths = make_folder(tmp_path / "set")
    first = open_splits(folder(tmp_path / "set", loader="stream")).fingerprints()
    monkeypatch.setattr(content, "_checksum", None)  # a second start computes none
    assert open_splits(folder(tmp_path / "set", loader="stream")).fingerprints() == first
    monkeypatch.undo()
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))
    os.utime(paths[0])  # touched, not changed
    assert open_splits(folder(tmp_path / "set", loader="stream")).fingerprints() == first


@pytest.mark.parametrize("loader", ["stream", "auto"])
def test_records_have_a_fingerprint_of_their_images_alone(loader, tmp_path):
    make_set(tmp_path / "a")
    make_set(tmp_path / "b", path="pets/2.0.0", train=(12,))  # the same records, in other files
    make_set(tmp_path / "c", label=lambda number: (number + 1) % 3, train=(6, 6))
    make_set(tmp_path / "d", train=(8, 5))
    one, same, relabelled, longer = (
        open_splits(pets(tmp_path / name, loader=loader)).fingerprints() for name in ("a", "b", "c", "d")
    )
    assert one == same == relabelled
    assert longer["train"] != one["train"] and longer["test"] != one["test"]


def test_arrays_differ_by_any_pixel_and_by_their_order(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3), np.uint8)
    first = content.of_array(images)
    assert len(np.unique(first.images)) == 40
    assert content.of_array(np.asfortranarray(images)).fingerprint == first.fingerprint
    assert content.of_array(images[::-1]).fingerprint != first.fingerprint
    images[39, 4, 3, 2] ^= 1
    assert content.of_array(images).fingerprint != first.fingerprint


def test_of_more_than_the_limit_every_nth_image_is_read_and_the_size_of_all(monkeypatch):
    files = [bytes([number]) * (10 + number % 3) for number in range(30)]

    def of(files):
        sizes, key = np.array([len(file) for file in files]), str(hash(tuple(files)))
        return content.of_files("a set", sizes, files.__getitem__, key, np.arange(len(files)), 1)

    assert of(files).images is not None
    monkeypatch.setattr(content, "LIMIT", sum(map(len, files)) // 2)
    first = of(files)
    assert first.images is None and of(list(files)) == first
    for number, file, changes in ((6, b"y" * 10, True), (7, b"y" * 11, False), (7, b"y" * 12, True)):
        assert (of([*files[:number], file, *files[number + 1 :]]).fingerprint != first.fingerprint) == changes
    images = np.random.default_rng(0).integers(0, 256, (40, 5, 4, 3), np.uint8)
    monkeypatch.setattr(content, "LIMIT", images.nbytes // 2)
    before = content.of_array(images)
    images[38] ^= 1
    assert before.images is None and content.of_array(images).fingerprint != before.fingerprint


def test_synthetic_images_are_told_by_what_they_are_made_of():
    def of(source):
        return open_splits(Data(source=source, val_examples=4)).fingerprints()

    assert of("synthetic:8x8x3:4:64") == of("synthetic:8x8x3:4:64")
    assert len({tuple(of(f"synthetic:8x8x3:{rest}").values()) for rest in ("4:64", "4:68", "5:64")}) == 3
    assert of("synthetic:8x8x3:4:64")["train"] != of("synthetic:8x8x3:4:64")["test"]


def test_an_npz_file_may_be_saved_anew_and_moved(tmp_path):
    arrays = save_npz(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    assert open_splits(npz(tmp_path / "a.npz")).fingerprints() == open_splits(npz(tmp_path / "b.npz")).fingerprints()


def test_large_arrays_are_searched_in_chunks_of_bytes(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    monkeypatch.setattr(examples, "_CHUNK_BYTES", 3 * images[0].nbytes)
    taken = []

    class Seen(np.ndarray):
        def __getitem__(self, which):
            taken.append(len(which))
            return np.asarray(self)[which]

    found = content.of_array(images.view(Seen))
    everything = found.look(np.arange(40))
    assert everything.tolist() == content.of_array(images).images.tolist()
    assert found.look(np.array([5, 3])).tolist() == everything[[5, 3]].tolist() and max(taken) == 3
