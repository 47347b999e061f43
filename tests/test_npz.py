"""Arrays in `.npz` files that are not what they seem: each is refused in one line, before memory is asked for."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn.config import UserError
from jaxcnn.data.source import open_splits
from jaxcnn.machine import malloc, npz_arrays
from tests.test_source import npz, save_npz


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))


def array_bytes(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write(path, compression=zipfile.ZIP_STORED, **members):
    """A zip file of members given as arrays or as bytes."""
    whole = {"train_images": np.zeros((6, 4, 4, 3), np.uint8), "train_labels": np.arange(6) % 2}
    whole |= {"test_images": np.zeros((2, 4, 4, 3), np.uint8), "test_labels": np.arange(2)}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in (whole | members).items():
            archive.writestr(f"{name}.npy", value if isinstance(value, bytes) else array_bytes(value))
    return path


def claims(shape, dtype="|u1"):
    """A header of an array of this shape, and ten bytes of it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(10)


def refusal(path, **fields):
    with pytest.raises(UserError) as caught:
        splits = open_splits(npz(path, **{"val_examples": 1} | fields))
        splits.test.read(np.arange(len(splits.test)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_every_compression_that_python_knows_is_read(compression, tmp_path):
    splits = open_splits(npz(write(tmp_path / "a.npz", compression), val_examples=2))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (4, 2, 2)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
@pytest.mark.parametrize(
    "shape", [(10**12, 4, 4, 3), (10**30, 4, 4, 3), (6, 10**6, 10**6, 3), (-(10**12), 4, 4, 3), (7, 4, 4, 3)]
)
def test_a_header_that_claims_more_than_the_file_holds_is_refused_before_memory_is_asked_for(
    shape, compression, tmp_path
):
    path = write(tmp_path / "a.npz", compression, train_images=claims(shape))
    assert "'train_images' cannot be read: its header states" in refusal(path)


@pytest.mark.parametrize(
    "members, words",
    [
        ({"train_labels": np.array([0, 1, 2, 3, 4, 2**31 - 1])}, "label 2147483647, but only 8 examples"),
        ({"train_labels": np.array(["0", "1"] * 3)}, "labels must be class numbers"),
        ({"train_labels": b"0 1 0 1 0 1"}, "'train_labels' is not an array"),
        ({"train_images": b""}, "'train_images' is not an array"),
        ({"train_images": b"\x93NUMPY\x01\x00"}, "'train_images' cannot be read"),
        ({"train_images": b"\x93NUMPY\x09\x00" + bytes(200)}, "cannot be read: it has another version"),
        ({"train_images": np.array([None] * 6)}, "holds Python objects"),
        ({"names": np.array(["a", {}], object)}, "'names' holds Python objects"),
        ({"names": np.array([], str)}, "'names' contains no names"),
        ({"train_images": np.zeros((6, 4, 4, 0), np.uint8)}, "its images have no pixels"),
        ({"train_images": np.zeros((6, 0, 4), np.uint8)}, "its images have no pixels"),
        ({"test_images": np.zeros((0, 4, 4, 3), np.uint8), "test_labels": np.zeros(0, int)}, "selects no examples"),
        ({"train_labels": np.array(0)}, "labels must be class numbers"),
        ({"train_images": np.array(0, np.uint8)}, r"images must be [N, H, W, C]"),
    ],
)
def test_a_member_that_is_no_array_of_images_or_labels_is_refused_without_advice_to_load_it_unsafely(
    members, words, tmp_path
):
    told = refusal(write(tmp_path / "a.npz", **members))
    assert words in told
    assert not any(word in told for word in ("pickle", "unsafe", "allow_", "max_header"))


def test_members_that_are_encrypted_or_compressed_in_an_unknown_way_are_refused(tmp_path):
    whole = write(tmp_path / "a.npz").read_bytes()
    for offset, value, words in ((8, 1, "is encrypted"), (10, 97, "is compressed in an unknown way (type 97)")):
        damaged = bytearray(whole)
        for at in range(len(whole)):  # in every entry of the directory, which is two bytes further on than in a header
            if whole[at : at + 4] == b"PK\x01\x02":
                damaged[at + offset] = value
        (tmp_path / "b.npz").write_bytes(damaged)
        assert words in refusal(tmp_path / "b.npz")


def test_a_path_longer_than_any_is_told_shortened():
    told = refusal("x" * 5000)
    assert "longer than any path can be" in told
    assert len(told) < 300
    assert "cannot be read" in refusal("y" * 300)


def test_names_may_be_bytes(tmp_path):
    names = np.array(["Grün".encode(), b"b\xff"])
    assert open_splits(npz(write(tmp_path / "a.npz", names=names), val_examples=2)).class_names == ("Grün", "b\ufffd")


def test_a_validation_split_may_have_the_long_name(tmp_path):
    arrays = save_npz(tmp_path / "a.npz")
    own = {"validation_images": arrays["test_images"], "y_validation": arrays["test_labels"]}
    save_npz(tmp_path / "b.npz", **own)
    splits = open_splits(npz(tmp_path / "b.npz", test_split="val", protocol="full"))
    assert (splits.test.read(np.arange(8)) == arrays["test_images"]).all()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    return [write(folder / f"{how}.npz", how).read_bytes() for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(sound, tmp_path_factory, data):
    whole = bytearray(data.draw(st.sampled_from(sound)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.sampled_from([len(whole)] * 3 + list(range(0, len(whole), 97)))) :]
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(whole)
    try:
        splits = open_splits(npz(path, val_examples=1))
        splits.test.read(np.arange(len(splits.test)))
    except UserError as error:
        assert "\n" not in str(error)  # any other error fails the test


def test_weights_larger_than_the_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    np.savez_compressed(path, kernel=np.zeros(2**20, np.float32))
    assert len(npz_arrays.read(path, 2**22)["kernel"]) == 2**20
    monkeypatch.setattr(malloc, "obtainable", lambda: 2**22 - 1)
    with pytest.raises(ValueError, match="its arrays take"):
        npz_arrays.read(path, 2**23)
    monkeypatch.setattr(malloc, "obtainable", lambda: None)
    assert len(npz_arrays.read(path, 2**23)["kernel"]) == 2**20
