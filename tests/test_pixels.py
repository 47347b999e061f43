"""Images of any number of channels, of 16 bits and of floats: their values arrive as they are stored."""

import io
import json
import struct
import zlib
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import Augment, ConfigError, Data, UserError, from_config_dict
from jaxcnn.data import as_stored, augment
from jaxcnn.data.batch import Batch
from jaxcnn.data.decode import Unreadable, decode
from jaxcnn.data.image_statistics import image_statistics
from jaxcnn.data.pixels import decode_for, resized, size_for
from jaxcnn.data.source import open_splits
from jaxcnn.tasks.classes import Classes
from jaxcnn.train.contact_sheet import Draws, in_unit_interval
from tests import runs
from tests.test_folder import cache, encode, everything  # noqa: F401 (a fixture)

COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's type for each number of channels


def values(height=9, width=7, channels=3, dtype=np.uint16, seed=0):
    """Random values over the whole range of an integer type; floats far from [0, 1]."""
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (1000 * random.standard_normal((height, width, channels)) - 200).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def png(pixels, filtered=False):
    """A PNG of 16 bits, written here byte by byte; `filtered`: by the differences of neighbours (filter 1)."""
    rows = pixels.astype(">u2").view(np.uint8).reshape(len(pixels), -1)
    step = 2 * pixels.shape[-1]
    if filtered:
        rows = rows - np.pad(rows, ((0, 0), (step, 0)))[:, :-step]
    data = b"".join(bytes([filtered]) + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, COLOURS[pixels.shape[-1]], 0, 0, 0)
    found = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")):
        found += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return found


def npy(pixels):
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()


def tiff(pixels, **options):
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def read(encoded):
    pixels = as_stored.read(encoded, 500)
    assert as_stored.size(encoded) == pixels.shape[:2]
    return pixels


def equal(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and (one == other).all()


# Files


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("filtered", [False, True])
def test_a_png_of_16_bits_keeps_all_of_them(channels, filtered):
    pixels = values(channels=channels)
    assert equal(read(png(pixels, filtered)), pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK"])
def test_the_channels_of_8_bits_are_those_of_the_file(mode):
    pixels = values(channels=len(mode), dtype=np.uint8)
    image = Image.fromarray(pixels if len(mode) > 1 else pixels[..., 0], mode)
    assert equal(read(encode(image, format="TIFF" if mode == "CMYK" else "PNG")), pixels)


def test_a_palette_counts_as_its_colours():
    image = Image.fromarray(values(dtype=np.uint8)).convert("P")
    assert equal(read(encode(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float16, np.float32, np.float64, ">u2", ">f4"])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 13)])
def test_npy_files_hold_any_numbers(dtype, shape):
    pixels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    assert equal(read(npy(pixels)), pixels.reshape(5, 4, -1))


@pytest.mark.parametrize(
    ("pixels", "options", "expected"),
    [
        (values(channels=3), {"photometric": "rgb"}, None),
        (values(channels=13), {"photometric": "minisblack", "planarconfig": "contig"}, None),
        (
            values(channels=13).transpose(2, 0, 1),
            {"photometric": "minisblack", "planarconfig": "separate"},
            values(channels=13),
        ),
        (values(channels=5).transpose(2, 0, 1), {"photometric": "minisblack"}, values(channels=5)),  # pages
        (values(channels=4, dtype=np.float32), {"photometric": "rgb"}, None),
        (values(channels=1, dtype=np.float32)[..., 0], {}, values(channels=1, dtype=np.float32)),
        (values(channels=1, dtype=np.float64)[..., 0], {}, values(channels=1, dtype=np.float64)),
        (values(channels=1)[..., 0].astype(np.int16), {}, values(channels=1).astype(np.int16)),
        (values(channels=1)[..., 0], {"compression": "zlib"}, values(channels=1)),
        (values(channels=3, dtype=np.uint8), {"photometric": "rgb", "byteorder": ">"}, None),
        (values(channels=3), {"photometric": "rgb", "byteorder": ">", "bigtiff": True}, None),
    ],
)
def test_tiff_of_many_channels_pages_and_types(pixels, options, expected):
    assert equal(read(tiff(pixels, **options)), pixels if expected is None else expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_is_upright_as_pillow_shows_it(orientation, channels):
    eight = values(4, 8, channels=1, dtype=np.uint8)
    tags = [(274, "H", 1, orientation, False)]
    upright = decode(tiff(eight[..., 0], extratags=tags), channels=1)
    deep = np.repeat(eight, channels, axis=-1).astype(np.uint16)
    layout = {"photometric": "minisblack"} if channels == 1 else {"photometric": "rgb"}
    encoded = tiff(deep[..., 0] if channels == 1 else deep, **layout, extratags=tags)
    assert equal(read(encoded), np.repeat(upright, channels, axis=-1).astype(np.uint16))


@pytest.mark.parametrize(
    ("encoded", "line"),
    [
        (b"", "not an image file"),
        (png(values())[:-40], "truncated|broken|not enough"),
        (npy(values())[:-1], "it is truncated"),
        (npy(np.zeros((2, 3, 4, 5))), "not an image"),
        (npy(np.array([[None]])), "not an image"),
        (npy(np.zeros((0, 3))), "not an image"),
        (b"\x93NUMPY\x01\x00" + bytes(20), "."),
        (npy(values(2, 2)).replace(b"(2, 2, 3)", b"(9, 9, 3)"), "it is truncated"),
    ],
)
def test_damaged_files_are_refused(encoded, line):
    for look in (lambda: as_stored.read(encoded, 500), lambda: as_stored.size(encoded)):
        if look is not None and line.startswith("truncated"):  # the header is whole
            look = lambda: as_stored.read(encoded, 500)  # noqa: E731
        with pytest.raises(Unreadable, match=line):
            look()


def test_a_large_file_is_refused_before_it_is_read():
    for encoded in (npy(values(100, 101)), png(values(100, 101)), tiff(values(100, 101))):
        with pytest.raises(
            Unreadable, match=r"header states 101 x 100 pixels, more than config.data.max_megapixels=0.01"
        ):
            as_stored.read(encoded, 0.01)


def test_a_tiff_beyond_pillow_names_the_extra(monkeypatch):
    encoded = tiff(values(channels=13))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs tifffile, which is not installed: pip install 'jaxcnn\[tiff\]'"):
        as_stored.read(encoded, 500)


# Types, channels, sizes


def test_float32_takes_any_numbers_and_integers_only_their_own():
    for dtype in (np.uint8, np.int16, np.uint16, np.float16, np.float64, bool):
        pixels = np.arange(6).reshape(1, 2, 3).astype(dtype)
        assert equal(as_stored.as_type(pixels, "float32"), pixels.astype(np.float32))
    assert equal(as_stored.as_type(values().astype(">u2"), "uint16"), values())
    for dtype, wanted, other in (
        (np.uint8, "uint16", "uint8"),
        (np.uint16, "uint8", "uint16"),
        ("i2", "uint16", "float32"),
    ):
        with pytest.raises(Unreadable, match=rf"but config.data.dtype='{wanted}'; .* set config.data.dtype='{other}'"):
            as_stored.as_type(values().astype(dtype), wanted)
    for bad in (np.nan, np.inf, 1e39):
        with pytest.raises(Unreadable, match="NaN, or values that are infinite"):
            as_stored.as_type(np.array([[[bad]]]), "float32")


def test_another_number_of_channels_is_refused():
    rgba = encode(Image.fromarray(values(channels=4, dtype=np.uint8)))
    assert equal(decode_for(Data(channels=4), rgba, 0, 4), values(channels=4, dtype=np.uint8))
    with pytest.raises(Unreadable, match=r"it has 3 channels, not 1; see config.data.channels"):
        decode_for(Data(dtype="uint16"), png(values()), 0, 1)
    assert decode_for(Data(), rgba, 0, 1).shape == (9, 7, 1)  # 8-bit grey and RGB are converted, as ever
    assert decode_for(Data(), npy(values(dtype=np.uint8)), 0, 3).shape == (9, 7, 3)
    assert size_for(Data(), npy(values(dtype=np.uint8)), 3) == (9, 7)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_channel_of_every_type_is_resized_alike(fit, dtype):
    eight = values(40, 30, channels=3, dtype=np.uint8)
    reference = resized(eight, 16, fit).astype(float)
    five = resized(np.concatenate([eight, eight[..., :2]], axis=-1).astype(dtype), 16, fit)
    assert five.dtype == dtype and (five[..., :2] == five[..., 3:]).all()
    # Pillow rounds 8-bit pixels after each of two passes; in 16 bits they are rounded once, and floats not at all.
    assert np.abs(five[..., :3] - reference).max() <= (0 if dtype == np.uint8 else 1.01)


# Splits


def test_bits_that_are_lost_are_told(tmp_path):
    for label in "ab":
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "set" / label / f"{number}.png").write_bytes(png(values(seed=number)))
    fields = {"source": f"folder:{tmp_path / 'set'}", "test_split": "", "protocol": "full"}
    (note,) = open_splits(Data(**fields)).notes
    assert "has colour images of 16 bits (6 of the first 6), of which 8 are kept; config.data.dtype='uint16'" in note
    assert open_splits(Data(**fields, dtype="uint16")).notes == ()


def deep_folder(root, channels=2, dtype=np.uint16, count=6, side=8):
    """Two classes of `.npy` images, the second one brighter; their pixels by their bytes' class."""
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = values(side, side, channels, dtype, seed=100 * label + number)
            np.save(
                root / name / f"{number}.npy",
                pixels // 2 + (pixels.max() // 2) * label if dtype == np.uint16 else pixels,
            )
    return root


FIELDS = {"train_split": "train[:8]", "test_split": "train[8:]", "val_examples": 3}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_splits_keep_their_type_with_and_without_the_cache(tmp_path, dtype):
    deep_folder(tmp_path / "set", channels=5, dtype=dtype)
    data = dict(source=f"folder:{tmp_path / 'set'}", channels=5, dtype=dtype, **FIELDS)
    decoded, kept = (open_splits(Data(**data, loader=loader)).train for loader in ("stream", "auto"))
    again = open_splits(Data(**data)).train
    assert decoded.dtype == dtype and decoded.image_shape == (8, 8, 5)
    assert equal(everything(decoded), everything(kept)) and equal(everything(kept), everything(again))
    assert open_splits(Data(**data, image_size=4)).train.read(np.arange(2)).shape == (2, 4, 4, 5)


def test_a_folder_of_arrays_says_what_to_set(tmp_path):
    deep_folder(tmp_path / "set")
    source = f"folder:{tmp_path / 'set'}"
    with pytest.raises(UserError, match=r"has no images; skipped 12 files of other kinds in .*npy"):
        open_splits(Data(source=source, **FIELDS))
    with pytest.raises(UserError, match=r"\d.npy.*it has 2 channels, not 3; see config.data.channels"):
        everything(open_splits(Data(source=source, dtype="uint16", **FIELDS)).train)


@pytest.mark.parametrize(("dtype", "stored"), [("uint16", np.uint16), ("float32", np.float64), ("float32", np.int16)])
def test_arrays_of_npz_keep_their_values(tmp_path, dtype, stored):
    images = np.stack([values(seed=seed) for seed in range(8)]).astype(stored)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(8) % 2)
    data = Data(source=f"npz:{tmp_path / 'a.npz'}", dtype=dtype, protocol="full", test_split="")
    assert equal(everything(open_splits(data).train), images.astype(dtype))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "is uint16, but images must be uint8 .*; set it to 'uint16', or save"),
        ({"dtype": "uint16", "channels": 4}, "has images of 3 channels, but config.data.channels=4"),
        ({"source": "digits", "dtype": "float32"}, "config.data.dtype='float32': digits has images of type uint8"),
        ({"source": "synthetic", "channels": 2}, "config.data.channels=2: synthetic has images of 3 channels"),
    ],
)
def test_arrays_of_another_kind_are_refused_in_one_line(tmp_path, fields, line):
    np.savez(tmp_path / "a.npz", images=values()[None].repeat(8, 0), labels=np.arange(8) % 2)
    with pytest.raises(UserError, match=line) as caught:
        open_splits(Data(**{"source": f"npz:{tmp_path / 'a.npz'}", "protocol": "full", "test_split": ""} | fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fields", [{"policy": "randaugment"}, {"hue": 0.1}, {"brightness": 0.1}])
def test_operations_on_8_bit_pixels_are_refused_for_others(fields):
    with pytest.raises(
        ConfigError, match=r"policies and colour jitter are for 8-bit pixels; with config.data.dtype='uint16'"
    ):
        from_config_dict({"data": {"dtype": "uint16"}, "augment": fields})


# Normalisation


class InMemory:
    def __init__(self, images):
        self.images, self.image_shape, self.dtype = images, images.shape[1:], images.dtype

    def __len__(self):
        return len(self.images)

    def read(self, indices):
        return self.images[indices]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_mean_and_standard_deviation_are_those_of_rational_numbers(dtype):
    images = np.stack([values(channels=2, dtype=dtype, seed=seed) for seed in range(3)])
    if dtype == "float32":  # small ones beside large ones, down to the smallest that there is
        images[0, 0] = [[1e-45, -3e30], *[[1e-20, 7.0]] * 6]
    mean, std = image_statistics(InMemory(images))
    for channel in range(2):
        exact = [Fraction(float(value)) for value in images[..., channel].ravel()]
        unit = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
        first = sum(exact) / len(exact)
        variance = sum(value**2 for value in exact) / len(exact) - first**2
        assert mean[channel] == np.float32(float(first / unit))
        # The root is rounded in float64, so that of float32 is off by at most one unit in its last place.
        assert std[channel] == pytest.approx(float(variance) ** 0.5 / unit, rel=2**-23)


def test_values_far_from_0_lose_nothing():
    far = np.full((1, 2, 2, 1), 1e6, np.float32) + np.array([0.25, 0, 0, -0.25], np.float32).reshape(1, 2, 2, 1)
    mean, std = image_statistics(InMemory(far))
    assert mean == 1e6 and std == np.float32(np.sqrt(0.125 / 4))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_same_pixels_in_another_type_are_augmented_alike(dtype):
    eight = np.stack([values(8, 8, dtype=np.uint8, seed=seed) for seed in range(6)])
    scale = {"uint16": 257, "float32": 1}[dtype]
    other = eight.astype(dtype) * np.dtype(dtype).type(scale)
    config = Augment(crop="zero", crop_padding=2, flip="random", cutout=3, mixup=0.4, cutmix=1.0)
    index = jnp.arange(6)
    results = []
    made = jax.jit(augment.augment, static_argnums=(0, 1))
    for pixels in (eight, other):
        batch = Batch(jnp.asarray(pixels), index, index, index, jnp.ones(6, bool))
        mean, std = map(jnp.asarray, image_statistics(InMemory(pixels)))
        results.append(made(config, Classes(2), batch, jax.random.key(1), mean, std).image)
    # Normalised values are below 2. Each is the result of up to eight roundings of numbers below 2.
    np.testing.assert_allclose(*results, rtol=0, atol=8 * 2**-23)


def test_a_preview_shows_the_whole_range_of_floats():
    original = np.array([-2.0, 6.0], np.float32).reshape(1, 1, 2, 1)
    draws = Draws(original, None, original[None], [None])
    assert [each.ravel().tolist() for each in in_unit_interval(draws)] == [[0, 1], [0, 1]]


# A whole run


def test_a_run_on_five_channels_of_16_bits_predicts_its_files(tmp_path):
    root = deep_folder(tmp_path / "set", channels=5, count=20)
    flags = ["--config=configs/quickstart.py", f"--config.data.source=folder:{root}", "--config.data.channels=5"]
    flags += ["--config.data.dtype=uint16", "--config.data.val_examples=4", "--config.global_batch_size=8"]
    flags += [
        "--config.run.epochs=0",
        "--config.run.steps=12",
        "--config.run.tensorboard=False",
        "--config.model.width=0.25",
    ]
    workdir = f"--workdir={tmp_path / 'run'}"
    code, output = runs.run(*flags, workdir, **runs.UNOPTIMISED)
    assert code == 0, output
    code, output = runs.run(
        "--mode=predict", f"--images={root}", workdir, f"--json={tmp_path / 'found.json'}", **runs.UNOPTIMISED
    )
    assert code == 0, output
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 40 and np.mean([each["file"].split("/")[-2] == each["label"] for each in found]) > 0.7


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_of_every_type_and_order_are_those_that_numpy_reads(version):
    numbers = np.random.default_rng(0).integers(0, 2, (2, 5, 4, 3))
    for kind in ("|u1", "<u2", ">u2", "<f4", ">f8", "<i8", "|b1", "<f2"):
        for stack in (numbers.astype(kind), np.asfortranarray(numbers.astype(kind))):
            for array in (stack, stack[0], stack[0, :, :, 0]):
                file = io.BytesIO()
                np.lib.format.write_array(file, array, version)
                encoded = file.getvalue()
                if array.ndim == 4:
                    assert as_stored.stack_size(encoded) == 2
                    found = as_stored.stack(encoded, 1.0)
                else:
                    assert as_stored.stack_size(encoded) is None
                    found = as_stored.read(encoded, 1.0).reshape(array.shape)
                assert found.dtype == array.dtype and np.array_equal(found, array)
