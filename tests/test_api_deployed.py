"""A run in Python makes files, times and serves its network by the code of the commands."""

import json
import urllib.error
import urllib.request

import pytest

import jaxcnn
from tests import digits, runs
from tests.test_interrupts import THIN

IMAGE = runs.ROOT / "docs" / "digits" / "0.png"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployed")
    digits.run(folder, **THIN)
    return jaxcnn.load(folder)


def test_a_run_is_exported_verified_timed_and_compressed_as_by_the_commands(run, tmp_path, capsys):
    made = run.export("onnx", tmp_path / "a.onnx", verify=True, progress=False)
    assert made.path == tmp_path / "a.onnx" and made.verdict.agreement == 1.0 and "verified in ONNX" in str(made)
    assert capsys.readouterr().out == ""
    assert run.export("onnx").path == run.workdir / "model.onnx"
    assert "operators of step" in capsys.readouterr().out
    times = run.latency(made.path, batches=(2, 1), seconds=0.0, threads=1)
    assert times.column("batch") == [1, 2] and all(each["images_per_second"] > 0 for each in times)
    small = run.compress(tmp_path / "a.jxc", layer_bits={"conv1/kernel": 6}, progress=False)
    assert small.path.stat().st_size == small.figures["steps"][-1]["size"]
    assert json.loads((tmp_path / "a.jxc.json").read_text())["steps"] == small.figures["steps"]
    assert run.network.trained.mesh.size > 1, "files and times are those of one device, whatever the run has"
    slim = run.compress(tmp_path / "slim", method="filters", keep=0.5, seconds=0.0, progress=False)
    assert jaxcnn.load(slim.path).step == 0 and slim.table[0] in slim._repr_markdown_()
    assert slim.figures["after"]["parameters"] < slim.figures["before"]["parameters"]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda run: run.export("onx"), "format='onx': it must be one of safetensors, onnx,"),
        (lambda run: run.export("onnx", quantize="int4"), "quantize='int4': it must be one of none, float16, int8"),
        (lambda run: run.export("onnx", names="timm"), "names is for format=safetensors, not onnx; leave it out"),
        (lambda run: run.export("onnx", split="test"), "split is for verify; leave it out"),
        (lambda run: run.export("onnx", 3), "out must be a path, such as 'runs/digits', not of type int"),
        (lambda run: run.export("onnx", data=3), "data must be a path, such as 'runs/digits', not of type int"),
        (
            lambda run: run.compress(layer_bits=3),
            "layer_bits must be a mapping from layers to numbers, not of type int",
        ),
        (lambda run: run.latency(3), "file must be a path, such as 'runs/digits', not of type int"),
        (lambda run: run.latency(batches=3), "batches must be a list of batch sizes, not of type int"),
        (lambda run: run.evaluate("val", batch_size=-1), "batch_size must be at least 0, not -1"),
        (lambda run: run.evaluate("val", batch_size=2.5), "batch_size must be a whole number, but is 2.5"),
        (lambda run: run.export("onnx", "no/a.onnx"), "there is no folder no"),
        (lambda run: run.compress(method="slim"), "method='slim': it must be one of deep, filters, share"),
        (lambda run: run.compress(method="filters"), "method=filters needs out=<folder of the new run>"),
        (lambda run: run.compress(keep=0.25), "keep is for method=filters, not deep; leave it out"),
        (lambda run: run.compress(conv_bits=13), "conv_bits=13: bits of shared values are 1 to 12"),
        (lambda run: run.latency(batches=(0,)), "batches=0: batch sizes are numbers from 1 to"),
        (lambda run: run.latency(threads=1), "threads is for a file"),
        (lambda run: run.latency(runtime="jax"), "runtime is for a .onnx file; leave it out"),
        *(
            (lambda run, file=f"a{end}": run.latency(file, threads=1), "threads is for a file in ONNX Runtime (.onnx)")
            for end in (".stablehlo", ".jxc", ".safetensors", "")
        ),
        *(
            (lambda run, file=f"a{end}": run.latency(file, runtime="jax"), "runtime is for a .onnx file; leave it out")
            for end in (".tflite", ".stablehlo", ".jxc", ".safetensors", "")
        ),
        (lambda run: run.latency("a.onnx", threads=1, runtime="jax"), "threads is for a file in ONNX Runtime (.onnx)"),
        (lambda run: run.latency("a.onnx", threads=-1), "threads must be at least 0, not -1"),
        (lambda run: run.latency(seconds=float("nan")), "seconds must be at most 2**63"),
        (lambda run: run.serve(batch=0), "batch must be at least 1, not 0"),
        (lambda run: run.serve(batch=1025), "batch must be at most 1024"),
        (lambda run: run.serve(70000), "port must be at most 65535"),
        (lambda run: run.serve(10**400), "port must be at most 65535"),
        (lambda run: run.serve("8000"), "port must be a whole number, but is '8000'"),
        (lambda run: run.serve(max_wait_ms=-1.0), "max_wait_ms must be at least 0, not -1.0"),
        (lambda run: run.serve(max_wait_ms=float("inf")), "max_wait_ms must be at most 2**63"),
        (lambda run: run.serve(max_requests=True), "max_requests must be a whole number, but is True"),
        (lambda run: run.export("onnx", quantize="int8", fold=False), "needs BatchNorm folded; leave fold=False out"),
    ],
)
def test_a_wrong_argument_is_one_line_without_flags(run, call, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(jaxcnn.UserError) as caught:
        call(run)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_something_else_in_the_place_of_a_card_is_refused_in_words_of_python(run, tmp_path):
    (tmp_path / "a.onnx.md").write_text("# Notes\n")
    with pytest.raises(jaxcnn.UserError, match=r"and is no model card; move it, or give card=False$"):
        run.export("onnx", tmp_path / "a.onnx")


def ask(address: str, token: str = "") -> dict:
    headers = {"content-type": "image/png"} | ({"authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"{address}predict", IMAGE.read_bytes(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_a_server_in_a_thread_answers_as_the_run_until_it_is_closed(run):
    with run.serve(batch=2, token="secret") as server:
        assert ask(server.address, "secret")["label"] == run.predict(IMAGE)[0]["label"]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(server.address)
        with pytest.raises(jaxcnn.UserError, match="cannot be listened on; choose another"):
            run.serve(int(server.address.rpartition(":")[2].strip("/")), batch=1)
    with pytest.raises(urllib.error.URLError):
        ask(server.address)
