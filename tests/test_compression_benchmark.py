"""`benchmarks.compression`: what it runs, that it goes on, and its table."""

import dataclasses
import json
import pathlib
import time

import pytest

from benchmarks import compression_report, compression_steps
from jaxcnn.config import to_dict
from jaxcnn.train import workdir
from jaxcnn.train.interrupts import Interrupted
from tests import digits, runs

SUMMARY = {
    "model": "cnn",
    "data": "npz:digits.npz train",
    "epochs": 4.0,
    "seed": 0,
    "test": {"top1_accuracy": 0.9},
    "headline": "ema_top1_accuracy",
    "headline_kind": {"label": "accuracy", "better": "higher", "percent": True},
}
INT8 = "this processor has no instructions for int8"
ADVICE = ": expect a smaller file"  # is not told beside what was measured


def coded(accuracy: float, scale: int) -> dict:
    figures = {"figures": {"top1_accuracy": accuracy}}
    sizes = {
        "float32": 1000,
        "int8 per channel": 300,
        "pruned: float32 and indices": 200,
        "shared values and indices": 10 * scale,
        "Huffman words: some.jxc": 8 * scale,
    }
    return {
        "layers": [],
        "steps": [{"step": name, "size": size, "coded": {"zlib": size // 3}} | figures for name, size in sizes.items()],
    }


def run_of(seed: int) -> dict:
    sizes = {"whole.none": 1000, "whole.float16": 500, "whole.int8": 250, "slim.none": 400, "slim.int8": 100}
    files = {name: {"bytes": size, "figures": {"top1_accuracy": 0.9}} for name, size in sizes.items()}
    files["slim.none"]["figures"] = {"top1_accuracy": 0.85 + 0.02 * seed}
    files = {f"{name}.{form}": files[name] for name in files for form in compression_report.FORMS}
    files["whole.int8.tflite"] = {"bytes": 260, "figures": {"top1_accuracy": 0.902}}
    seconds = {"whole in JAX": 0.002, "slim in JAX": 0.0015} | dict.fromkeys(files, 0.001)
    seconds["whole.int8.tflite"] = 0.0005
    return {
        "name": "small",
        "seed": seed,
        "summary": SUMMARY,
        "measured": {"files": files, "seconds": seconds, "int8": INT8 + ADVICE},
        "coded": {"pruned": coded(0.88, 5), "tuned": coded(0.89, 4)},
        "coded_bytes": {"pruned": 40, "tuned": 32},
        "costs": {"before": {"parameters": 4000, "flops": 9000}, "after": {"parameters": 1000, "flops": 3000}},
    }


def test_the_table_has_each_form_with_bytes_of_its_file_and_its_own_figure():
    record = {"command": "…", "date": "2026-01-01", "peers": {"jaxcnn": {}}, "runs": [run_of(0), run_of(1)]}
    lines = compression_report.markdown(record).splitlines()
    for line in (
        "| float32 | 1,000 | 1.0 | 90.00% | +0.00 | 2.00 | 1.00 | 1.00 |",
        "| int8 | 250 | 4.0 | 90.00% | +0.00 |  | 1.00 | 0.50 |",
        "| pruned: float32 and indices | 200 | 5.0 | 88.00% | -2.00 |  |  |  |",
        "| pruned, int8, zlib | 100 | 10.0 | 88.00% | -2.00 |  |  |  |",
        "| pruned, values shared | 50 | 20.0 | 88.00% | -2.00 |  |  |  |",
        "| pruned, shared values trained | 40 | 25.0 | 89.00% | -1.00 |  |  |  |",
        "| Deep Compression: the same in Huffman words | 32 | 31.2 | 89.00% | -1.00 |  |  |  |",
        "| fewer channels | 400 | 2.5 | 86.00% ± 1.41% | -4.00 | 1.50 | 1.00 | 1.00 |",
    ):
        assert line in lines, line
    (told,) = [line for line in lines if line.startswith("cnn of")]
    assert told.startswith("cnn of npz:digits.npz train, 4 epochs; 2 seeds of what was trained on.")
    assert told.endswith(
        f"FLOPs of an image 9,000 → 3,000. T{INT8[1:]}. "
        "The figures of files of ONNX and of LiteRT differ by at most 0.20%."
    )


def test_runs_of_one_network_and_set_share_a_table_with_their_spread_and_paired_differences():
    runs = [run_of(seed) | {"name": f"small_seed{seed}"} for seed in range(2)]
    for form in compression_report.FORMS:  # the second run is better by 4 points in all its forms but the slimmed one
        for name in ("whole.none", "whole.float16", "whole.int8"):
            file = runs[1]["measured"]["files"][f"{name}.{form}"]
            runs[1]["measured"]["files"][f"{name}.{form}"] = file | {"figures": {"top1_accuracy": 0.94}}
    other = run_of(0) | {"name": "other", "summary": SUMMARY | {"data": "another set"}}
    record = {"command": "…", "date": "2026-01-01", "peers": {"jaxcnn": {}}, "runs": [*runs, other]}
    lines = compression_report.markdown(record).splitlines()
    assert [line for line in lines if line.startswith("###")] == ["### small_seed0, small_seed1", "### other"]
    assert any("; 2 runs, 2 seeds of what was trained on." in line for line in lines)
    for line in (
        "| int8 | 250 | 4.0 | 92.00% ± 2.83% | +0.00 |  | 1.00 | 0.50 |",
        "| fewer channels | 400 | 2.5 | 86.00% ± 1.41% | -6.00 ± 1.41 | 1.50 | 1.00 | 1.00 |",
    ):
        assert line in lines, line


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    begun, ran = tmp_path / "small", []
    begun.mkdir()
    config = digits.config()
    workdir.write_config(begun, config)

    def make(steps, module, *given):
        ran.append((module.rpartition(".")[2], *given))
        place = pathlib.Path(given[-1].partition("=")[2])
        place.parent.mkdir(exist_ok=True)
        if place.suffix:
            place.write_text("1")
            (place.parent / f"{place.name}.json").write_text(json.dumps(coded(0.9, 1)))
        else:
            place.mkdir()
            (place / "slim.json").write_text(
                json.dumps({"before": {"parameters": 2, "flops": 2}} | {"after": {"parameters": 1, "flops": 1}})
            )
        if len(ran) == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(compression_steps.Steps, "_run", make)
    monkeypatch.setattr(
        compression_steps.summary,
        "read",
        lambda folder: SUMMARY | {"data": "npz:/far/away/digits.npz train"} if folder.exists() else None,
    )
    steps = compression_steps.Steps(
        begun, tmp_path / "steps" / "0", 3, compression_steps.Options(), ["--config.run.tta=none"], None
    )
    with pytest.raises(KeyboardInterrupt):
        steps.measured()
    record = steps.measured()
    modules = [module for module, *_ in ran]
    assert modules == [
        "main",
        "compress",
        "compress",
        "main",
        "compress",
        "compress",
        "main",
        *["export"] * 10,
        "compression_measure",
    ]
    assert len({given[-1] for _, *given in ran}) == len(ran), "each once"
    rate = f"--config.optim.learning_rate={0.3 * to_dict(config)['optim']['learning_rate']:g}"
    trained = [given for module, *given in ran if module == "main"]
    assert [rate in given for given in trained] == [True, False, True]
    assert all(list(given[-3:-1]) == ["--config.seed=3", "--config.run.tta=none"] for given in trained)
    assert record["summary"]["data"] == "npz:digits.npz train"
    assert record["coded_bytes"] == {"pruned": 1, "tuned": 1} and record["costs"]["after"] == {
        "parameters": 1,
        "flops": 1,
    }
    steps.measured()
    assert len(ran) == len(modules), "nothing is left"


def test_the_work_is_done_part_by_part_and_what_a_stopped_step_left_is_made_again(tmp_path, monkeypatch):
    ran, stop_at = [], "slim"
    base = tmp_path / "base" / "vgg16_seed1"

    def make(steps, module, *given):
        place = pathlib.Path(given[-1].partition("=")[2])
        ran.append(place.name)
        place.parent.mkdir(exist_ok=True, parents=True)
        assert not place.exists(), "nothing is left of a step that was stopped"
        if place.suffix:
            place.write_text("1")
            (place.parent / f"{place.name}.json").write_text(json.dumps(coded(0.9, 1)))
        else:
            place.mkdir()
            workdir.write_config(place, digits.config())
        if place.name == stop_at:
            raise Interrupted("stopped")

    monkeypatch.setattr(compression_steps.Steps, "_run", make)
    monkeypatch.setattr(compression_steps.summary, "read", lambda folder: SUMMARY if folder.exists() else None)

    def done(last, until=None):
        ran.clear()
        options = compression_steps.Options()
        place = tmp_path / "steps" / "1"
        steps = compression_steps.Steps(base, place, 1, options, [], None, until, last, "vgg16_cifar10")
        assert steps.measured() is None
        return list(ran)

    assert done("run") == ["vgg16_seed1"] and done("run") == []
    with pytest.raises(Interrupted):
        done("compress")
    assert ran == ["pruned", "pruned.jxc", "shared", "tuned", "tuned.jxc", "slim"]
    stop_at = ""
    assert done("compress") == ["slim", "slim_on"]
    exported = done("export")
    assert len(exported) == 10 and done("export") == [] and "whole.none.onnx" in exported


def test_steps_whose_time_is_over_do_not_begin(tmp_path):
    options = compression_steps.Options()
    given = (tmp_path / "base", tmp_path / "steps", 0, options, [], None, time.monotonic() - 1, "run", "vgg16_cifar10")
    with pytest.raises(Interrupted, match="the time of --minutes is over; the same command continues"):
        compression_steps.Steps(*given).measured()


def test_each_option_is_described_once(root):
    told = compression_steps.words()
    assert set(told) == {field.name for field in dataclasses.fields(compression_steps.Options)}
    sources = "".join(path.read_text() for path in (root / "benchmarks").glob("compression*.py"))
    assert all(sources.count(words) == 1 for words in told.values())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), "there is no run: give --workdirs=<folder>,<folder>"),
        (
            ("--workdirs=a/runs,b/runs",),
            "two folders of --workdirs have the same name, which is to be that of the network",
        ),
        (("--workdirs=runs", "--seeds=0,x"), "--seeds=0,x: seeds are whole numbers"),
        (("--workdirs={folder}",), "{folder} is no finished run; its command goes on with it"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, given, told):
    given = [each.format(folder=tmp_path) for each in given]
    answer = runs.run(*given, f"--out={tmp_path / 'c'}", module="benchmarks.compression")
    assert answer == (2, f"jaxcnn: {told.format(folder=tmp_path)}\n")
