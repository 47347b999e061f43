"""The page of `--format=web` in a real browser: the pixels, the answers and what a person does, without a network."""

import base64
import functools
import hashlib
import http.server
import io
import json
import os
import pathlib
import subprocess
import threading

import numpy as np
import pytest
from PIL import Image

from jaxcnn.data import decode
from jaxcnn.deploy import onnx_file, runtimes, web
from jaxcnn.train import assess, predict, trained
from tests import digits, runs, small
from tests.services.test_report_browser import CHROMIUM, FLAGS

pytestmark = pytest.mark.services
TOLERANCE = 1e-4  # of the standard deviation of the logits, as in tests/test_deploy.py
HERE = pathlib.Path(__file__).parent
WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan")  # by the processor
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder, and `given` by path; keeps what the browser tells by POST."""

    daemon_threads = True

    def __init__(self, folder):
        self.given, self.told, self.heard, self.offline = {}, None, threading.Event(), False
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        name = self.path.partition("?")[0].removeprefix("/")
        if self.server.offline:
            self.close_connection = True
            return None
        if name not in self.server.given:
            return super().do_GET()
        content = self.server.given[name]
        self.send_response(200)
        kinds = {"js": "text/javascript", "html": "text/html"}
        self.send_header("content-type", kinds.get(name.rpartition(".")[2], "application/octet-stream"))
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(204)
        self.end_headers()
        if self.path == "/offline":  # from now on no file is given
            self.server.offline = True
        else:
            self.server.told = told
            self.server.heard.set()

    def log_message(self, *_):
        pass


@pytest.fixture
def served(page, tmp_path):
    """Serves the page; a function that opens one of its pages in Chromium and returns what this tells by POST."""
    assert CHROMIUM, "make test-services installs Chromium"
    server = Server(page[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def browse(path, *flags):
        server.heard.clear()
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/profile", "--remote-debugging-port=0", *flags]
        url = f"http://localhost:{server.server_port}/{path}"
        with subprocess.Popen([*command, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
            try:
                assert server.heard.wait(120), "the page told nothing"
            finally:
                browser.terminate()
        return server.told

    yield server, browse
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A network of the digits, and the folder of its page."""
    folder = tmp_path_factory.mktemp("web")
    digits.run(folder / "run")
    cache = {"JAXCNN_CACHE": os.path.expanduser("~/.cache/jaxcnn-tests/web")}  # npm fetches the runtime once
    flags = (f"--workdir={folder}/run", "--format=web", f"--out={folder}/page", "--verify")
    code, output = runs.run(*flags, module="jaxcnn.export", **cache)
    if "could not be fetched by npm" in output or "there is no npm" in output:
        pytest.skip(output.splitlines()[-1])
    assert code == 0 and "the same largest logit for 100.00%" in output, output
    with small.programs_kept():
        network, _ = trained.load(folder / "run", "last", "", 1)
    return network, folder / "page", folder / "run"


def images(count):
    """Encoded images that browsers and Pillow decode to the same pixels: all sizes, kinds and colours."""
    generator = np.random.default_rng(0)
    for number in range(count):
        width, height = (int(each) for each in generator.integers(3, 150, 2))
        coarse = generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        if number % 4 == 0:
            image = Image.fromarray(generator.integers(0, 256, (height, width, 3), np.uint8))  # noise
        mode = ("RGB", "L", "P", "1")[number % 3 if number % 7 else 3]
        kind = ("PNG", "BMP", "GIF", "WEBP")[number % 4 if number % 5 else 0]
        options = {"lossless": True} if kind == "WEBP" else {}
        file = io.BytesIO()
        image = image.convert("RGB" if kind == "WEBP" else mode)
        if number % 6 == 0 and kind in ("PNG", "WEBP"):
            exif = Image.Exif()
            exif[0x0112] = number % 8 + 1  # the orientation
            options["exif"] = exif
        image.save(file, kind, **options)
        yield file.getvalue()


READ = (HERE / "web_read.js").read_text()
ANSWER = (HERE / "web_answer.js").read_text()


def script(server, text, cases):
    server.given = {
        "check.html": b'<!doctype html><script type="module" src="check.js"></script>',
        "check.js": text.encode(),
        "cases.json": json.dumps(cases).encode(),
    }


def text_of(content):
    return base64.b64encode(content).decode()


def test_the_pixels_of_a_hundred_images_are_those_of_python_by_every_rule(served):
    server, browse = served
    contents = list(images(100))
    rules = [(fit, channels, size) for fit in ("crop", "pad", "stretch") for channels in (1, 3) for size in (8, 33)]
    used = [rules[number % len(rules)] for number in range(len(contents))]
    facts = {"max_megapixels": 500, "order": web._order_of_axes()}
    script(
        server,
        READ,
        [
            {"image": text_of(content), "image_shape": [size, size, channels], "resize": fit, **facts}
            for content, (fit, channels, size) in zip(contents, used, strict=True)
        ],
    )
    told = browse("check.html")
    for found, content, (fit, channels, size) in zip(told, contents, used, strict=True):
        wanted = decode.decode(content, size, channels, fit=fit)
        assert not isinstance(found, str), found
        assert np.array_equal(np.array(found).reshape(wanted.shape), wanted), (fit, channels, size)


def test_jpegs_and_transparent_images_have_the_same_pixels_but_for_large_jpegs_which_have_nearly_the_same(served):
    """Python decodes a JPEG of more than twice the size at a reduced scale, which a browser cannot."""
    server, browse = served
    generator = np.random.default_rng(0)

    def encoded(width, height, kind, mode="RGB", **options):
        coarse = generator.integers(0, 256, (height // 16 + 1, width // 16 + 1, len(mode)), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse, mode).resize((width, height), Image.Resampling.BICUBIC).save(file, kind, **options)
        return file.getvalue()

    cases = {
        "equal": [
            encoded(45, 40, "JPEG", quality=quality, subsampling=k % 3) for k, quality in enumerate(range(60, 96))
        ],
        "reduced": [encoded(500 + 40 * k, 700, "JPEG", quality=85) for k in range(6)],
        "transparent": [encoded(60 + k, 50, "PNG", "RGBA") for k in range(6)],
    }
    facts = {"image_shape": [32, 32, 3], "resize": "crop", "max_megapixels": 500, "order": web._order_of_axes()}
    every = [content for contents in cases.values() for content in contents]
    script(server, READ, [{"image": text_of(content), **facts} for content in every])
    told = iter(browse("check.html"))
    differences = {
        name: [np.abs(np.array(next(told)).reshape(32, 32, 3) - decode.decode(each, 32, 3)) for each in contents]
        for name, contents in cases.items()
    }
    assert np.max(differences["equal"]) == np.max(differences["transparent"]) == 0
    # Roundings of libjpeg's reduced transform, of our mean, and of colours that were blurred when they were enlarged.
    assert np.max(differences["reduced"]) <= 3 and np.mean(differences["reduced"]) < 0.5


@pytest.mark.parametrize(("on", "flags"), [("wasm", ()), ("webgpu", WEBGPU)])
def test_a_hundred_images_are_answered_as_by_python(on, flags, served, page):
    server, browse = served
    network, _, run = page
    split = assess.open_split(network, run, "val", "")[0]
    contents = []
    for pixels in np.asarray(split.read(np.arange(50))):
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0]).save(file, "PNG")
        contents.append(file.getvalue())
    contents += images(50)
    script(server, ANSWER, [text_of(content) for content in contents])
    seen = browse(f"check.html?on={on}", *flags)
    assert seen["runs"] == {"wasm": "WebAssembly", "webgpu": "WebGPU"}[on], "this Chromium has no such processor"
    told = sorted(seen["told"], key=lambda each: each["id"])
    shape, data = network.spec.image_shape, network.config.data
    inputs = np.stack([predict.decoded(content, shape, data) for content in contents])
    outputs = np.concatenate([predict.outputs_of(network, inputs[k : k + 50]) for k in (0, 50)])
    answers = network.spec.task.evaluation.answers(outputs, network.class_names, network.constants, network.fitted)
    assert len(told) == 100
    for reply, pixels, logits, answer in zip(told, inputs, outputs, answers, strict=True):
        found = reply["result"]
        assert np.array_equal(np.array(found["pixels"]).reshape(shape), pixels)
        assert np.abs(np.array(found["outputs"]) - logits).max() <= TOLERANCE * outputs.std()
        assert [one["label"] for one in found["top"]] == [one["label"] for one in answer["top"]]
        for one, other in zip(found["top"], answer["top"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_int8_and_float16_networks_answer_in_the_browser_as_in_python(served, page):
    server, browse = served
    network, folder, run = page
    split = assess.open_split(network, run, "train", "")[0]
    contents = list(images(20))
    inputs = np.stack([predict.decoded(each, network.spec.image_shape, network.config.data) for each in contents])
    graphs = {
        "int8": onnx_file.int8_graph_of(network, split, 200, "minmax"),
        "float16": onnx_file.half_graph_of(network),
    }
    for quantize, graph in graphs.items():
        onnx_file.write_graph(graph, network, folder.parent / "model.onnx")
        content = (folder.parent / "model.onnx").read_bytes()
        facts = json.loads((folder / web.FACTS).read_text())
        facts |= {"quantize": quantize, "sha256": hashlib.sha256(content).hexdigest()}
        script(server, ANSWER, [text_of(each) for each in contents])
        server.given |= {"model.onnx": content, "network.json": json.dumps(facts).encode()}
        told = sorted(browse("check.html?on=wasm")["told"], key=lambda each: each["id"])
        wanted = runtimes.of_file(folder.parent / "model.onnx").call(inputs)
        found = np.array([each["result"]["outputs"] for each in told])
        # int8: the same integers; those of a float32 sum just between two may differ by one. float16: 2^-11, 10 layers.
        assert np.abs(found - wanted).max() <= 0.02 * wanted.std(), quantize


ACTING = (HERE / "web_acting.js").read_text()


def acting(server, text, script=ACTING):
    """Let the server give the page with a script in it."""
    server.given["acting.js"] = script.encode()
    server.given["acting.html"] = text.encode() + b'<script type="module" src="acting.js"></script>'


def test_a_person_gives_images_by_file_drop_paste_and_camera_also_without_a_network(served, page):
    server, browse = served
    network, folder, _ = page
    one, two = list(images(16))[14:]
    server.given |= {"one.png": one, "two.png": two}
    acting(server, (folder / "index.html").read_text())
    seen = browse("acting.html?on=wasm", *CAMERA, "--window-size=500,900")  # Chromium's least width
    shape, data = network.spec.image_shape, network.config.data
    of_images = predict.answers(network, np.stack([predict.decoded(each, shape, data) for each in (one, two)]))
    labels = [[one["label"] for one in answer["top"]] for answer in of_images]
    assert (seen["file"], seen["drop"], seen["paste"]) == (labels[0], labels[1], labels[0])
    assert seen["sizes"] == [8, 8] and seen["title"] == "cnn: 10 classes" and seen["wide"] == 0
    assert "WebAssembly, " in seen["runs"] and "threads" in seen["runs"]  # by the headers of the service worker
    assert seen["broken"] == [] and seen["why"].endswith("this is no image that the browser can read")
    assert seen["camera"] == 5 and seen["stopped"]
    assert server.offline and seen["offline"] == labels[0] and seen["loaded"] == []


def test_names_are_no_markup_and_damaged_networks_are_refused(served, page):
    server, browse = served
    _, folder, _ = page
    facts = json.loads((folder / web.FACTS).read_text())
    names = ["<img src=x onerror=alert(1)>", "</script><b>", "\u202eabc", *facts["class_names"][3:]]
    server.given |= {"network.json": json.dumps(facts | {"class_names": names}).encode(), "one.png": next(images(1))}
    script = (
        ACTING.partition("if (sessionStorage")[0]
        + """
    get("file").files = carrying(await given("one.png")).files;
    const labels = get("about").textContent, all = await answered(() => get("file").dispatchEvent(new Event("change")));
    await tell({ labels, all, inside: document.querySelectorAll("dd *, li bdi *").length });
    """
    )
    acting(server, (folder / "index.html").read_text(), script)
    seen = browse("acting.html?on=wasm")
    assert names[0] in seen["labels"] and set(seen["all"]) <= set(names) and seen["inside"] == 0
    content = bytearray((folder / web.NETWORK).read_bytes())
    content[len(content) // 2] ^= 1
    server.given |= {"model.onnx": bytes(content), "acting.js": (script.partition("get(\"file\").files")[0]
        + "await tell(get('told').textContent);").encode()}  # fmt: skip
    assert browse("acting.html?on=wasm").endswith("model.onnx is damaged; copy the folder again")
