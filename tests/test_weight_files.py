"""Weights in files fit a network or are refused in one line; nothing is left unexplained."""

import contextlib
import io
import json
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxcnn import config
from jaxcnn.config import UserError
from jaxcnn.weights import files, fit, hub

CNN = config.Model(name="cnn")
SHAPES = {
    "params/conv1/kernel": (3, 3, 3, 4),
    "params/bn1/scale": (4,),
    "params/bn1/bias": (4,),
    "params/classifier/kernel": (3, 4),
    "params/classifier/bias": (3,),
    "batch_stats/bn1/mean": (4,),
}
CLASSES = ("cat", "dog", "eel")


def drawn(shapes=SHAPES, seed=0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


def fitted(given, initial=None, **options):
    return fit.fit(given, CNN, initial or drawn(seed=1), source="file:x", classes=CLASSES, **options)


def refused(words: str, call, *arguments, **options) -> None:
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    (line,) = str(caught.value).splitlines()
    assert words in line, line


def test_an_array_of_the_same_name_and_shape_is_loaded_to_the_bit():
    given = drawn()
    made = fitted(given)
    assert {row.status for row in made.rows} == {fit.LOADED} and made.naming == "jaxcnn"
    for key, value in given.items():
        np.testing.assert_array_equal(made.arrays[key], value)


def test_classes_of_the_same_name_are_taken_over_and_the_others_keep_their_drawn_rows():
    given, initial = drawn(SHAPES | {"params/classifier/kernel": (2, 4), "params/classifier/bias": (2,)}), drawn(seed=1)
    made = fitted(given, initial, given_classes=("eel", "fox"))
    for leaf in ("kernel", "bias"):
        key = f"params/classifier/{leaf}"
        np.testing.assert_array_equal(made.arrays[key], np.stack([*initial[key][:2], given[key][0]]))
    assert [row.why for row in made.rows if row.status == fit.ADAPTED] == ["1 of 3 classes by name, the others new"] * 2


def test_classes_that_are_only_numbered_are_not_taken_for_the_same():
    given = drawn(SHAPES | {"params/classifier/kernel": (2, 4), "params/classifier/bias": (2,)})
    made = fit.fit(given, CNN, drawn(seed=1), source="x", classes=("0", "1", "2"), given_classes=("0", "1"))
    assert [row.status for row in made.rows if "classifier" in row.ours] == [fit.LEFT_OUT] * 2


def test_the_same_classes_in_another_order_are_put_in_ours():
    given = drawn()
    made = fitted(given, given_classes=("eel", "cat", "dog"))
    np.testing.assert_array_equal(
        made.arrays["params/classifier/bias"], given["params/classifier/bias"][np.array([1, 2, 0])]
    )


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (drawn(SHAPES | {"params/classifier/kernel": (9, 4), "params/classifier/bias": (9,)}), {}),
        (drawn(), {"given_classes": ("x", "y", "z")}),
        (drawn(), {"new_head": True}),
        (drawn({key: shape for key, shape in SHAPES.items() if "classifier" not in key}), {"new_head": True}),
        (drawn(), {"skip": ("classifier/.*",)}),
    ],
)
def test_a_head_of_other_classes_is_left_out(given, options):
    made = fitted(given, **options)
    assert {row.ours for row in made.rows if row.status == fit.LEFT_OUT} == {
        "params/classifier/kernel",
        "params/classifier/bias",
    }
    assert not any("classifier" in key for key in made.arrays)


def test_the_first_kernel_gives_a_grey_image_what_it_gives_its_three_equal_channels():
    given = drawn()
    made = fitted(given, drawn(SHAPES | {"params/conv1/kernel": (3, 3, 1, 4)}))
    kernel = given["params/conv1/kernel"].astype(np.float64)
    grey = np.random.default_rng(2).standard_normal((3, 3))
    np.testing.assert_allclose(
        np.einsum("hw,hwo->o", grey, made.arrays["params/conv1/kernel"][:, :, 0]),
        np.einsum("hwi,hwio->o", np.stack([grey] * 3, -1), kernel),
        atol=1e-6,  # nine products with sums that were rounded to float32, of size 10: 9 * 10 * 6e-8 / 5
    )
    five = fitted(given, drawn(SHAPES | {"params/conv1/kernel": (3, 3, 5, 4)})).arrays["params/conv1/kernel"]
    np.testing.assert_allclose(five[:, :, 3], kernel[:, :, 0] * 3 / 5, rtol=1e-7)  # rounded once to float32


def test_what_is_not_explained_is_refused():
    without = {key: value for key, value in drawn().items() if "bn1" not in key}
    refused("lacks bn1/scale, bn1/bias, bn1/mean of the network", fitted, without)
    refused("has params/conv2/kernel, which the network has not", fitted, drawn() | {"params/conv2/kernel": np.ones(3)})
    refused("bn1/bias has shape (5,)", fitted, drawn(SHAPES | {"params/bn1/bias": (5,)}))
    refused("has no array of cnn in the naming of jaxcnn; it has a, b", fitted, {"a": np.ones(2), "b": np.ones(2)})
    refused("'timm' has no network 'cnn'", fitted, drawn(), naming="timm")
    refused("config.init.skip: '(' is not a regular expression", fitted, drawn(), skip=("(",))
    refused("config.init.skip: 'conv1' matches no parameter", fitted, drawn(), skip=("conv1",))


def test_what_pytorch_counts_is_no_weight():
    model = config.Model(name="resnet20")
    given = {"module.conv1.weight": np.ones((16, 3, 3, 3), np.float32), "module.bn1.num_batches_tracked": np.array(9)}
    initial = {"params/stem_conv/kernel": np.zeros((3, 3, 3, 16), np.float32)}
    made = fit.fit(given, model, initial, source="file:x")
    assert made.naming == "torchvision" and list(made.arrays) == ["params/stem_conv/kernel"]
    assert made.rows[-1].why == "no weight of a network"


def test_safetensors_and_npz_are_read_as_they_were_written(tmp_path):
    arrays, facts = drawn(), {"class_names": json.dumps(CLASSES)}
    files.write(tmp_path / "a.safetensors", arrays, facts)
    np.savez(tmp_path / "a.npz", **arrays)
    for name, told in (("a.safetensors", facts), ("a.npz", {})):
        read, found = files.read(tmp_path / name)
        assert found == told and read.keys() == arrays.keys()
        assert all(np.array_equal(read[key], arrays[key]) for key in arrays)


def test_safetensors_of_ours_with_any_byte_changed_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    for facts in ({"class_names": '["7"]'}, {"class_names": '["7"]', "made_by": "jaxcnn 9.0", "std": "[1.0]"}):
        files.write(path, {"a": np.arange(6, dtype=np.float32)}, facts)
        whole = path.read_bytes()
        assert files.read(path)[1] == files.facts(path) == facts
        accepted = []
        for place in range(len(whole)):
            for mask in (1, 32, 127):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
                with contextlib.suppress(UserError):
                    files.read(path)
                    accepted.append((place, mask))
        assert not accepted
        path.write_bytes(whole.replace(b'"7', b'"1').replace(b'\\"7', b'\\"1'))
        refused("is damaged or was changed (its checksum is another); export the run again", files.read, path)


@pytest.mark.parametrize("mark", ["jaxcnn_checked", "made_by"])
def test_safetensors_of_ours_need_their_checksum_and_those_of_others_have_none(mark, tmp_path):
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "a.safetensors", {mark: "jaxcnn 0.1"})
    words = "is damaged or was changed (it has no checksum); export the run again"
    refused(words, files.read, tmp_path / "a.safetensors")
    facts = {"class_names": "[]", "made_by": "another library", "sha256": "0" * 64}
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "b.safetensors", facts)
    assert files.read(tmp_path / "b.safetensors")[1] == facts


def test_what_is_damaged_or_may_run_code_is_refused_in_one_line(tmp_path):
    save_file(drawn(), tmp_path / "a.safetensors")
    np.savez(tmp_path / "a.npz", **drawn())
    for name in ("a.safetensors", "a.npz"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"short_{name}").write_bytes(content[: len(content) // 2])
        refused("is not a whole", files.read, tmp_path / f"short_{name}")
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": 1}))
    refused("is a pickle, which could run code; convert it once in PyTorch", files.read, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({}))
    refused("is a pickle of PyTorch", files.read, tmp_path / "w.pt")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    refused("holds Python objects", files.read, tmp_path / "objects.npz")
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    refused("is an HDF5 file of Keras", files.read, tmp_path / "w.h5")
    (tmp_path / "w.bin").write_bytes(b"something else")
    refused("is neither an npz nor a safetensors file", files.read, tmp_path / "w.bin")
    refused("cannot be read: No such file", files.read, tmp_path / "none.npz")
    np.savez(tmp_path / "nan.npz", a=np.array([1, np.nan], np.float32))
    refused("a has values that are not finite", files.read, tmp_path / "nan.npz")
    np.savez(tmp_path / "quantised.npz", a=np.ones(3, np.int8))
    refused("a has type int8, not float32", files.read, tmp_path / "quantised.npz")
    refused("is not a regular file", files.read, tmp_path)


@pytest.mark.parametrize("shape", [(2**50,), (2**62, 2**62), (-1,), (2**28,)])
def test_a_header_that_claims_more_than_the_file_has_is_refused_before_memory_is_taken(shape, tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", header.getvalue() + bytes(1000))
    refused("but the file has only 1000 for them", files.read, tmp_path / "a.npz")


def test_arrays_that_are_small_only_while_compressed_are_refused_with_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 2**20)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(2**19, np.float32))
    refused("its arrays take 0.0 GiB, and the limit is 0.0 GiB", files.read, tmp_path / "a.npz")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_taken_only_where_it_is_wanted(tmp_path, dtype):
    value = np.array([[0.5, -2.0, 0.125]], dtype)
    save_file({"a": value}, tmp_path / "a.safetensors")
    refused(f"a has type {value.dtype.name}", files.read, tmp_path / "a.safetensors")
    read, _ = files.read(tmp_path / "a.safetensors", half=True)
    np.testing.assert_array_equal(read["a"], value.astype(np.float32))


def test_a_repository_that_cannot_be_fetched_is_one_line_with_the_ways_without_a_network(monkeypatch, tmp_path):
    class Hub:
        @staticmethod
        def hf_hub_download(name, filename, revision):
            if (name, revision) != ("a/b", "v1"):
                raise OSError("no\nnetwork")
            (tmp_path / filename).write_text('{"pretrained_cfg": {"mean": [0.5], "std": [0.25]}}')
            return str(tmp_path / filename)

    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", Hub)
    monkeypatch.setattr(hub.extras, "need", lambda *_: None)
    assert hub.fetch("a/b@v1") == (tmp_path / "model.safetensors", {"mean": "[0.5]", "std": "[0.25]"})
    refused("hub:c/d could not be fetched (no network); without a network, give a copy", hub.fetch, "c/d")


def test_an_array_of_another_shape_gives_the_part_that_fits():
    ours, given = drawn(seed=1), drawn(seed=2)
    key, scale = "params/conv1/kernel", "params/bn1/scale"
    kernel = given[key]
    wider = given | {key: np.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 5))), "params/conv9/kernel": kernel}
    del wider[scale]
    made = fitted(wider, ours, given_classes=CLASSES, partial=True)
    assert (made.arrays[key] == kernel).all() and scale not in made.arrays
    told = {row.ours or row.theirs: row.status for row in made.rows if row.status != fit.LOADED}
    assert told == {key: fit.ADAPTED, scale: fit.NOT_FOUND, "params/conv9/kernel": fit.LEFT_OUT}
    narrow = given | {key: kernel[1:-1, 1:-1, :, :2]}
    part = (slice(1, -1), slice(1, -1), slice(None), slice(2))
    value = fitted(narrow, ours, given_classes=CLASSES, partial=True).arrays[key]
    assert (value[part] == kernel[part]).all()
    rest = np.ones(kernel.shape, bool)
    rest[part] = False
    assert (value == ours[key])[rest].all()
    refused("is of another network, form, width or image size", fitted, narrow, ours, given_classes=CLASSES)
