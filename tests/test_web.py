"""The folder of `--format=web`: what is in it, where its runtime comes from, and what is refused in one line."""

import hashlib
import io
import stat
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxcnn.config import UserError
from jaxcnn.data import decode
from jaxcnn.deploy import web, web_runtime
from jaxcnn.machine import writable

CONTENTS = {name: name.encode() for name in web_runtime.FILES}


@pytest.fixture
def release(monkeypatch, tmp_path):
    """A release with small files: its archive, and an empty cache."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    monkeypatch.setattr(web_runtime, "FILES", digests)
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm
    return archive(tmp_path / "given.tgz", CONTENTS)


def archive(path, contents):
    with tarfile.open(path, "w:gz") as made:
        for name, content in (contents | {"../outside.txt": b"1"}).items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def test_the_runtime_comes_from_an_archive_or_a_folder_and_only_by_its_checksums(release, tmp_path):
    assert web_runtime.read(str(release)) == CONTENTS
    for place in (tmp_path / "dist", tmp_path / "module" / "dist"):
        place.mkdir(parents=True)
        for name, content in CONTENTS.items():
            (place / name).write_bytes(content)
    assert web_runtime.read(str(tmp_path / "dist")) == web_runtime.read(str(tmp_path / "module")) == CONTENTS
    (tmp_path / "dist" / "ort.wasm.min.mjs").write_bytes(b"other")
    with pytest.raises(UserError, match=r"ort\.wasm\.min\.mjs is not that of onnxruntime-web 1\.30\.0, by its SHA-256"):
        web_runtime.read(str(tmp_path / "dist"))
    (tmp_path / "dist" / "ort.wasm.min.mjs").unlink()
    with pytest.raises(UserError, match=r"has no ort\.wasm\.min\.mjs; where there is a network, run: npm pack"):
        web_runtime.read(str(tmp_path / "dist"))
    release.write_bytes(release.read_bytes()[:60])
    with pytest.raises(UserError, match=r"cannot be read: it is no whole \.tgz"):
        web_runtime.read(str(release))
    with pytest.raises(UserError, match="cannot be read: No such file"):
        web_runtime.read(str(tmp_path / "nowhere"))


def test_npm_fetches_the_runtime_once_and_without_it_the_choices_are_told(release, tmp_path):
    with pytest.raises(UserError, match=r"there is no npm to fetch it; .*--runtime=onnxruntime-web-1\.30\.0\.tgz"):
        web_runtime.read()
    npm = tmp_path / "npm"
    npm.write_text(f'#!/bin/sh\nfor last; do :; done\n/bin/cp {release} "${{last#*=}}/{web_runtime.ARCHIVE}"\n')
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    assert web_runtime.read() == CONTENTS
    npm.write_text("#!/bin/sh\necho 'npm error network' >&2; exit 1\n")
    assert web_runtime.read() == CONTENTS  # from the cache
    (tmp_path / "cache" / web_runtime.ARCHIVE).write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"could not be fetched by npm \(npm error network\); where there is"):
        web_runtime.read()


def network_of(**changes):
    spec = SimpleNamespace(image_dtype="uint8", image_shape=(8, 8, 1))
    task = SimpleNamespace(name="classification", evaluation="")
    for name, value in changes.items():
        setattr(spec if hasattr(spec, name) else task, name, value)
    return SimpleNamespace(spec=spec, config=SimpleNamespace(task=task))


def test_images_and_answers_that_a_page_cannot_show_and_places_that_hold_others_are_refused(tmp_path):
    for changes, words in (
        ({"name": "regression"}, "not of config.task.name='regression'; use --format=onnx"),
        ({"evaluation": "mine:Figures"}, "not of an evaluation of its own"),
        ({"image_dtype": "uint16"}, "not 1 channels of uint16"),
        ({"image_shape": (8, 8, 4)}, "not 4 channels of uint8"),
    ):
        with pytest.raises(UserError, match=words):
            web.begin(network_of(**changes), tmp_path / "page")
    assert web.begin(network_of(), tmp_path / "page") == tmp_path / "page" / "model.onnx"
    writable.check_folder(tmp_path / "page", "web", web.FACTS, "page")
    (tmp_path / "page" / "mine.txt").touch()
    with pytest.raises(UserError, match="is not empty, and holds no page"):
        writable.check_folder(tmp_path / "page", "web", web.FACTS, "page")
    with pytest.raises(UserError, match="is a file; --format=web writes a folder"):
        writable.check_folder(tmp_path / "page" / "mine.txt", "web", web.FACTS, "page")
    with pytest.raises(UserError, match="none is no folder"):
        writable.check_folder(tmp_path / "none" / "page", "web", web.FACTS, "page")


def test_the_order_in_which_pillow_resizes_the_axes_is_found():
    pixels = np.random.default_rng(1).integers(0, 256, (150, 30, 1), np.uint8)
    image = Image.fromarray(pixels[..., 0])
    columns, rows = ((30, 20), (20, 20)), ((20, 150), (20, 20))
    order = columns if web._order_of_axes() == "cheapest" else rows
    for size in order:
        image = image.resize(size, Image.Resampling.BILINEAR)
    assert np.array_equal(decode.resize(pixels, 20, "stretch")[..., 0], np.asarray(image))
