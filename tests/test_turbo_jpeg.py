"""JPEGs through simplejpeg: the pixels and the errors of Pillow, to the byte, whatever the file."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data import decode, turbo_jpeg

simplejpeg = pytest.importorskip("simplejpeg")


@pytest.fixture(autouse=True)
def tried_anew():
    turbo_jpeg._trusted.cache_clear()
    yield
    turbo_jpeg._trusted.cache_clear()


def jpeg(height=33, width=22, mode="RGB", **options) -> bytes:
    coarse = np.random.default_rng(height).integers(0, 256, (5, 4, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 85} | options)
    return file.getvalue()


def result(encoded, size=0, channels=3):
    """The pixels, or why there are none."""
    try:
        return decode.decode(encoded, size, channels)
    except decode.Unreadable as error:
        return str(error)


def by_pillow(monkeypatch, *args):
    with monkeypatch.context() as patch:
        patch.setattr(turbo_jpeg, "decode", lambda *_: None)
        return result(*args)


def equal(one, other) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and one == other
    return one.dtype == other.dtype and np.array_equal(one, other)


PLAIN = [
    {},
    {"mode": "L"},
    *({"subsampling": each} for each in ("4:4:4", "4:2:2", "4:1:1")),
    {"progressive": True},
    {"restart_marker_blocks": 2},
    {"optimize": True, "quality": 3},
    {"quality": 100},
    {"icc_profile": b"x" * 300, "comment": "hello"},
    {"height": 1, "width": 1},
    {"height": 8, "width": 65},
]


@pytest.mark.parametrize("options", PLAIN, ids=str)
def test_plain_jpegs_have_the_pixels_of_pillow(options, monkeypatch):
    encoded = jpeg(**options)
    assert turbo_jpeg.decode(encoded, 0, 3, 500.0) is not None
    assert equal(result(encoded), by_pillow(monkeypatch, encoded))


def test_a_square_that_keeps_its_size_is_not_resized(monkeypatch):
    encoded = jpeg(24, 24)
    assert turbo_jpeg.decode(encoded, 24, 3, 500.0) is not None
    for fit in ("crop", "pad", "stretch"):
        expected = np.asarray(decode.square(Image.open(io.BytesIO(encoded)), 24, fit))
        assert equal(decode.decode(encoded, 24, fit=fit), expected)


def turned(orientation=6, xmp=False) -> bytes:
    if xmp:
        told = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{orientation}"/>'
        return jpeg(xmp=told.encode())
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(exif=exif.tobytes())


@pytest.mark.parametrize(
    ("encoded", "size", "channels"),
    [
        (jpeg(mode="CMYK"), 0, 3),
        (jpeg(keep_rgb=True), 0, 3),
        (turned(), 0, 3),
        (turned(xmp=True), 0, 3),
        (jpeg(), 16, 3),
        (jpeg(), 0, 1),
        (jpeg()[:-30], 0, 3),
        (b"\xff\xd8\xff", 0, 3),
        (b"\x89PNG", 0, 3),
    ],
    ids=["CMYK", "RGB", "EXIF", "XMP", "resized", "grey", "truncated", "empty", "PNG"],
)
def test_all_else_is_left_to_pillow(encoded, size, channels, monkeypatch):
    assert turbo_jpeg.decode(encoded, size, channels, 500.0) is None
    assert equal(result(encoded, size, channels), by_pillow(monkeypatch, encoded, size, channels))


def test_damaged_jpegs_have_the_pixels_or_the_error_of_pillow(monkeypatch):
    generator, whole, quick = np.random.default_rng(0), [jpeg(**options) for options in PLAIN], 0
    for trial in range(300):
        encoded = bytearray(whole[trial % len(whole)])
        if trial % 3 == 0:
            encoded = encoded[: generator.integers(2, len(encoded))]
        for place in generator.integers(len(encoded), size=trial % 3):
            encoded[place] = generator.integers(256)
        damaged = bytes(encoded)
        quick += turbo_jpeg.decode(damaged, 0, 3, 500.0) is not None
        assert equal(result(damaged), by_pillow(monkeypatch, damaged)), trial
    assert quick > 50  # those whose pixels changed, but not their form


def test_too_large_images_are_refused_as_by_pillow():
    with pytest.raises(decode.Unreadable, match=r"its header states 22 x 33 pixels, more than"):
        decode.decode(jpeg(), max_megapixels=0.0001)


def test_another_decoder_is_not_trusted(monkeypatch, caplog):
    expected, right = by_pillow(monkeypatch, jpeg()), simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *args, **more: right(*args, **more) ^ 1)
    for _ in range(2):
        assert equal(result(jpeg()), expected)
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith("simplejpeg decodes JPEGs otherwise than Pillow")


def test_without_the_extra_pillow_decodes(monkeypatch):
    monkeypatch.setattr(turbo_jpeg.util, "find_spec", lambda name: None)
    assert turbo_jpeg.decode(jpeg(), 0, 3, 500.0) is None and result(jpeg()).shape == (33, 22, 3)
