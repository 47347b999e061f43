"""The decoder's formats, limits and scales, and what is said of what images lose."""

import io
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from jaxcnn import config
from jaxcnn.data.decode import EXTENSIONS, FORMATS, Unreadable, decode, grey16_peak, stored_size
from jaxcnn.data.source import open_splits
from jaxcnn.train import predict
from tests.test_folder import encode, everything, folder, picture


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path_factory.mktemp("cache")))


def ramp(stop, dtype=np.uint16):
    """Grey of `stop` values, from 0 on."""
    return np.arange(stop, dtype=dtype).reshape(16, -1)


# Formats


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_every_lossless_format_gives_the_pixels_that_were_saved(kind):
    pixels = picture(0) // 86 * 86  # 27 colours, which a GIF can hold
    image = Image.fromarray(pixels)
    data = encode(
        image.convert("P", palette=Image.Palette.ADAPTIVE) if kind == "GIF" else image,
        format=kind,
        **({"lossless": True} if kind == "WEBP" else {}),
    )
    assert (decode(data) == pixels).all() and stored_size(data) == (12, 12)


def test_formats_have_extensions_that_no_other_has():
    extensions = [extension for each in EXTENSIONS.values() for extension in each]
    assert set(FORMATS) <= set(Image.OPEN) and len(set(extensions)) == len(extensions)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_of_eight_and_sixteen_bits(compression):
    rgb, grey = picture(0), ramp(4096)
    assert (decode(encode(Image.fromarray(rgb), format="TIFF", compression=compression)) == rgb).all()
    as_tiff, as_png = (encode(Image.fromarray(grey), format=kind) for kind in ("TIFF", "PNG"))
    assert (decode(as_tiff) == decode(as_png)).all() and grey16_peak(as_tiff) == grey16_peak(as_png) == 4095


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_stored_size_is_that_of_the_pixels_in_every_orientation(kind, orientation):
    if kind == "TIFF":
        directory = TiffImagePlugin.ImageFileDirectory_v2()
        directory[0x0112] = orientation
        data = encode(Image.fromarray(picture(0, 4, 8)), format=kind, tiffinfo=directory)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(Image.fromarray(picture(0, 4, 8)), format=kind, exif=exif)
    pixels = decode(data)
    assert pixels.shape[:2] == stored_size(data) == ((4, 8) if orientation < 5 else (8, 4))
    if orientation == 6:
        assert (pixels == np.rot90(picture(0, 4, 8), -1)).all()


@pytest.mark.parametrize(
    "image, line",
    [
        (Image.fromarray(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)), "floating-point numbers"),
        (Image.fromarray(np.arange(16, dtype=np.int32).reshape(4, 4)), "32 bits or are signed"),
    ],
)
def test_tiff_that_pillow_would_clip_is_refused(image, line):
    with pytest.raises(Unreadable, match=line):
        decode(encode(image, format="TIFF"))


def test_sixteen_bit_tiff_that_counts_from_white_is_refused():
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory[262] = 0
    data = encode(Image.fromarray(ramp(64)), format="TIFF", tiffinfo=directory)
    data = data.replace(b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00", b"\x06\x01\x03\x00\x01\x00\x00\x00\x00\x00")
    with pytest.raises(Unreadable, match="with white as 0"):
        decode(data)


def test_a_tiff_that_pillow_cannot_read_is_called_one():
    with pytest.raises(Unreadable, match=r"^a TIFF of an unsupported kind$"):
        decode(b"II*\0\x08\0\0\0" + bytes(40))


# Limits


def header_of(width, height):
    """A PNG file of 1x1 whose header says otherwise."""
    data = bytearray(encode(Image.new("L", (1, 1))))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_images_beyond_pillows_own_limit_are_read_and_those_beyond_ours_refused_in_one_line():
    assert stored_size(header_of(20_000, 20_000)) == (20_000, 20_000)
    gif = (
        b"GIF89a" + b"\xff\xff\xff\xff\x80\0\0" + bytes(6) + b"," + bytes(4) + b"\xff\xff\xff\xff\0\x02\x02\x44\x01\0;"
    )
    for data, size in ((header_of(25_000, 20_001), "25000 x 20001"), (gif, "65535 x 65535")):
        with pytest.raises(
            Unreadable, match=rf"its header states {size} pixels, more than config.data.max_megapixels=500"
        ):
            decode(data)
    with pytest.raises(Unreadable, match=r"more than config\.data\.max_megapixels=0\.05"):
        decode(encode(Image.new("L", (250, 201))), max_megapixels=0.05)
    assert decode(encode(Image.new("L", (250, 200))), max_megapixels=0.05).shape == (200, 250, 3)


def told(splits):
    """The remarks on a set, less those on the few images that these tests hold out."""
    return [note for note in splits.notes if "has no examples of" not in note]


def test_a_large_jpeg_counts_as_the_scale_it_is_decoded_at():
    data = encode(Image.new("RGB", (800, 800)), format="JPEG")
    assert decode(data, 16, max_megapixels=0.01).shape == (16, 16, 3)
    for size in (0, 100):
        with pytest.raises(Unreadable, match=r"more than config.data.max_megapixels=0.01"):
            decode(data, size, max_megapixels=0.01)


def test_too_large_images_are_named_or_left_out(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.fromarray(picture(number)).save(tmp_path / name / f"{number}.png")
    Image.new("L", (200, 200)).save(tmp_path / "b" / "slide.png")
    data = folder(tmp_path, max_megapixels=0.01, image_size=8, val_examples=1)
    with pytest.raises(config.UserError, match=r"b/slide.png: its header states 200 x 200 pixels, more than"):
        everything(open_splits(data).train)
    skipped = open_splits(folder(tmp_path, max_megapixels=0.01, image_size=8, val_examples=1, on_error="skip"))
    assert "skipped 1 unreadable image" in told(skipped)[0]
    raised = open_splits(folder(tmp_path, image_size=8, val_examples=1, on_error="skip"))
    assert not told(raised), "a higher limit finds the old check in the cache"


def test_pillow_writes_nothing_to_stderr():
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0"  # which promises two entries
    photo = encode(Image.new("RGB", (8, 8)), format="JPEG", exif=exif)
    tiff = b"II*\0\x08\0\0\0\x01\0\x15\x01\x03\0\x01\0\0\0\xff\xff\0\0" + bytes(8)  # of 65535 samples per pixel
    script = "from jaxcnn.data.decode import *\n"
    script += (
        f"for data in ({photo!r}, {header_of(10_000, 9_500)!r}):\n    print(stored_size(data))\ndecode({photo!r})\n"
    )
    script += f"try:\n    decode({tiff!r})\nexcept Unreadable:\n    print('unreadable')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["(8, 8)", "(9500, 10000)", "unreadable"] and done.stderr == ""


# Grey of 16 bits


@pytest.mark.parametrize("top", [1, 255, 1023, 4095, 40_000, 65_535])
def test_sixteen_bit_grey_is_scaled_exactly(top):
    values = np.unique(np.linspace(0, top, 4096).round().astype(np.uint16)).reshape(1, -1)
    found = decode(encode(Image.fromarray(values)), channels=1, grey16_max=top)[..., 0]
    assert (found == np.floor(values.astype(np.float64) * 255 / top + 0.5)).all() and found.max() == 255


def test_twelve_bits_give_all_grey_values_and_what_is_beyond_them_is_refused():
    data = encode(Image.fromarray(ramp(4096)))
    assert len(np.unique(decode(data))) == 16 + 1 and len(np.unique(decode(data, grey16_max=4095))) == 256
    with pytest.raises(Unreadable, match=r"it contains the value 4095, above config.data.grey16_max=1023"):
        decode(data, grey16_max=1023)


@pytest.mark.parametrize("transparent", [0, 7])
def test_transparent_sixteen_bit_grey_is_laid_over_white(transparent):
    file = io.BytesIO()
    Image.fromarray(ramp(64) * 257).save(file, "PNG", transparency=transparent * 257)
    expected = ramp(64)
    expected[expected == transparent] = 255
    assert (decode(file.getvalue(), channels=1)[..., 0] == expected).all()


def test_a_set_of_twelve_bits_is_told_of_and_its_field_ends_that(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.fromarray(np.roll(ramp(4096), number)).save(tmp_path / name / f"{number}.png")
    fields = {"train_split": "train", "test_split": "", "val_examples": 2}
    (note,) = open_splits(folder(tmp_path, **fields)).notes
    assert note == (
        f"folder:{tmp_path} train has 16-bit grey images with values up to only 4095 of 65535 (the first 8 were "
        "checked), so they keep 17 of the 256 grey values of 8 bits; config.data.grey16_max=4095 keeps more"
    )
    full = open_splits(folder(tmp_path, **fields, grey16_max=4095))
    assert not full.notes and len(np.unique(everything(full.train))) == 256
    dark = open_splits(folder(tmp_path, **fields))  # from the cache, where both are
    assert dark.notes == (note,) and everything(dark.train).max() == 16


# What the centre square leaves out


def wide(root, count=3, size=(20, 80)):
    for name in "ab":
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(picture(number, *size)).save(root / name / f"{number}.png")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_pixels_that_the_centre_square_leaves_out_are_told(tmp_path, on_error):
    wide(tmp_path)
    Image.fromarray(picture(7, 20, 20)).save(tmp_path / "a" / "square.png")
    fields = {"train_split": "train", "test_split": "", "val_examples": 2, "on_error": on_error}
    (note,) = told(open_splits(folder(tmp_path, **fields, image_size=16)))
    assert note == (
        f"config.data.image_size=16 keeps only the centre square of each image: of the 7 images of folder:{tmp_path} "
        "train, 6 lose 75% of their pixels; config.data.resize='pad' or 'stretch' keeps them"
    )


def test_of_many_images_the_first_are_looked_at(tmp_path):
    wide(tmp_path, count=40, size=(9, 12))
    (note,) = open_splits(folder(tmp_path, train_split="train", test_split="", image_size=8)).notes
    assert "of the first 64 of 80 images of" in note and "64 lose 25% of their pixels;" in note


def test_square_images_are_not_spoken_of(tmp_path):
    wide(tmp_path, size=(200, 201))
    for size in (8, 0):
        assert (
            told(open_splits(folder(tmp_path, train_split="train", test_split="", image_size=size, val_examples=1)))
            == []
        )


def test_arrays_are_told_of_as_well(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((6, 8, 10, 3), np.uint8), labels=np.arange(6) % 2)
    data = config.Data(source=f"npz:{tmp_path / 'a.npz'}", image_size=8, protocol="full", test_split="")
    (note,) = open_splits(data).notes
    assert "of the 6 images of the set, 6 lose 20% of their pixels" in note


# Crop, pad, stretch


def test_pad_keeps_the_whole_image_and_its_proportions_between_two_bars_of_0():
    pixels = picture(0, 9, 30)
    padded = decode(encode(Image.fromarray(pixels)), 20, fit="pad")
    inside = np.asarray(Image.fromarray(pixels).resize((20, 6), Image.Resampling.BILINEAR))
    assert (padded[7:13] == inside).all() and not padded[:7].any() and not padded[13:].any()
    upright = decode(encode(Image.fromarray(pixels.transpose(1, 0, 2))), 20, fit="pad")
    assert (upright == padded.transpose(1, 0, 2)).all()


def test_stretch_keeps_the_whole_image_without_its_proportions():
    pixels = picture(0, 9, 30)
    expected = np.asarray(Image.fromarray(pixels).resize((20, 20), Image.Resampling.BILINEAR))
    assert (decode(encode(Image.fromarray(pixels)), 20, fit="stretch") == expected).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_square_is_the_same_in_every_way_and_a_line_of_pixels_can_be_padded(fit):
    square = encode(Image.fromarray(picture(0)))
    assert (decode(square, 7, fit=fit) == decode(square, 7)).all()
    line = decode(encode(Image.new("L", (400, 1), 255)), 20, 1, fit=fit)
    assert line.shape == (20, 20, 1) and line.any(axis=(1, 2)).sum() == (1 if fit == "pad" else 20)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_a_large_jpeg_of_reduced_scale_is_close_to_the_one_of_full_scale(fit):
    y, x = np.mgrid[:600, :1600]
    pixels = np.stack([x * 255 // 1599, y * 255 // 599, (x + y) % 251], -1).astype(np.uint8)
    pixels[..., 2] = 90
    jpeg, png = (encode(Image.fromarray(pixels), format=kind) for kind in ("JPEG", "PNG"))
    assert np.abs(decode(jpeg, 64, fit=fit).astype(int) - decode(png, 64, fit=fit)).max() <= 6


def test_each_way_has_a_cache_of_its_own_and_arrays_and_predictions_are_resized_alike(tmp_path):
    wide(tmp_path / "set", size=(9, 30))
    fields = {"train_split": "train", "test_split": "", "protocol": "full", "image_size": 12}
    read = {
        fit: everything(open_splits(folder(tmp_path / "set", **fields, resize=fit)).train)
        for fit in ("crop", "pad", "stretch", "crop")
    }
    assert len({images.tobytes() for images in read.values()}) == 3
    pixels = np.stack([picture(number, 9, 30) for number in range(2)])
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(2))
    data = config.Data(source=f"npz:{tmp_path / 'a.npz'}", **fields | {"resize": "pad"})
    (tmp_path / "one.png").write_bytes(encode(Image.fromarray(pixels[1])))
    assert (everything(open_splits(data).train)[1] == predict.read(tmp_path / "one.png", (12, 12, 3), data)).all()


def test_a_way_that_is_none_is_refused():
    with pytest.raises(config.ConfigError, match="must be one of crop, pad, stretch, not 'letterbox'"):
        config.from_config_dict({"data": {"resize": "letterbox"}})


@pytest.mark.parametrize("value", [0, -1, 65536])
def test_a_range_that_is_none_is_refused(value):
    with pytest.raises(config.ConfigError, match=r"config\.data\.grey16_max must be (above 0|at most 65535)"):
        config.from_config_dict({"data": {"grey16_max": value}})
