"""A report of runs whose latency was kept has the plane of accuracy, size and latency, and its front."""

import hashlib
import json

from jaxcnn.deploy import kept_figures
from jaxcnn.deploy.verify import Verdict
from jaxcnn.reporting import charts, contents, plots, quickness, sizes, time_charts
from jaxcnn.reporting.findings import find
from jaxcnn.reporting.read import read
from tests import report_folders as folders


def figures(milliseconds, size, runtime="JAX on cpu", **more):
    timing = {"batch": 1, "p50": milliseconds / 1000, "p99": 2 * milliseconds / 1000}
    machine = {"cores": 2, "processor": "a processor"} | more
    return {"runtime": runtime, "bytes": size, "timings": [{"batch": 8, "p50": 9.0}, timing], **machine}


def verdict(accuracy):
    found = [("loss", 0.1, 0.2), ("top1_accuracy", 0.9, accuracy)]
    return Verdict("ONNX Runtime", 200, 0.1, 1.0, 0.99, found, size=10, latency=0.001)


def test_the_front_has_what_nothing_else_is_as_accurate_small_and_quick_as(tmp_path):
    for name, val in (("large", 0.95), ("small", 0.90), ("worse", 0.80)):
        folders.write_run(tmp_path / name, val=val, model__name="cnn", model__width={"large": 4.0}.get(name, 1.0))
    large, small, worse = (tmp_path / name for name in ("large", "small", "worse"))
    kept_figures.keep_latency(large, figures(8.0, 4000))
    kept_figures.keep_latency(small, figures(1.0, 1000))
    kept_figures.keep_latency(worse, figures(1.5, 1000))
    kept_figures.keep_latency(small, figures(0.1, 1, cores=1))  # alone on its number of cores
    file = large / "model.int8.onnx"
    file.write_bytes(b"a network")
    kept_figures.keep_verdict(file, verdict(0.94), "val")
    kept_figures.keep_latency(file, figures(4.0, 1500, "ONNX Runtime on cpu"))
    (plane,) = quickness.planes(find(read([tmp_path])))
    assert plane.machine == "2 cores of a processor" and [point.on_front for point in plane.points] == [
        True, False, True, True,
    ]  # fmt: skip
    assert [(point.figure, point.size) for point in plane.points][2:] == [(0.94, 1500), (0.95, 4000)]
    assert plane.points[2].form == "ONNX Runtime on cpu, model.int8.onnx"
    found = find(read([tmp_path]))
    rows = contents.tables(found)["latency"].rows
    assert len(rows) == 4 and [row[-1].text for row in rows] == ["yes", "", "yes", "yes"]
    with plots.style():
        (plot,) = [draw() for draw in charts.charts(found) if draw.func is time_charts.by_latency]
    assert "the front has 3 of 4 points" in plot.alt and sum("1,500 bytes" in tip for tip in plot.tips.values()) == 1


def test_what_was_not_measured_of_exactly_this_file_is_not_in_the_plane(tmp_path):
    folder = folders.write_run(tmp_path / "run", model__name="cnn")
    kept_figures.keep_latency(folder, figures(1.0, 1000))
    file = folder / "a.onnx"
    file.write_bytes(b"first")
    kept_figures.keep_verdict(file, verdict(0.5), "val")
    told = json.loads((folder / "a.onnx.verified.json").read_text())
    assert told["sha256"] == hashlib.sha256(b"first").hexdigest() and told["figures"]["top1_accuracy"] == 0.5
    file.write_bytes(b"second")
    kept = kept_figures.keep_latency(file, figures(1.0, 6))
    assert json.loads(kept.read_text())["verified"] is None
    assert "leaves it out until jaxcnn.export --verify --split=val" in kept_figures.missing(file)
    kept_figures.keep_verdict(file, verdict(0.5), "test")
    assert kept_figures.missing(file) and kept_figures.missing(folder) == ""
    (folder / "a.jxc").write_bytes(b"weights")
    assert "--verify is for files that have the whole network" in kept_figures.missing(folder / "a.jxc")
    (folder / "latency-cut-2.json").write_text('{"timings": [')
    (folder / "latency-list-2.json").write_text('{"timings": [1], "bytes": 2, "cores": 2}')
    assert quickness.planes(find(read([tmp_path]))) == []
    elsewhere = tmp_path / "b.onnx"
    elsewhere.write_bytes(b"alone")
    assert kept_figures.keep_latency(elsewhere, figures(1.0, 5)) is None and len(list(tmp_path.iterdir())) == 2
    (folder / "saved").mkdir()
    assert kept_figures.keep_latency(folder / "saved", figures(1.0, 5)) is None  # a folder cannot be verified


def test_times_of_different_devices_are_kept_apart_and_not_compared(tmp_path):
    folder = folders.write_run(tmp_path / "run", model__name="cnn")
    gpu = {"backend": "gpu", "device": "NVIDIA H200"}
    kept = [
        kept_figures.keep_latency(folder, each)
        for each in (
            figures(8.0, 1000, backend="cpu", device=""),
            figures(1.0, 1000, "JAX on gpu", **gpu),
            figures(9.0, 1000, "JAX on gpu", **gpu | {"device": "Tesla T4"}),
            figures(7.0, 1000, processor="another processor"),
        )
    ]
    assert [path.name for path in kept] == [
        "latency-jax-2-cores-of-a-processor.json",
        "latency-jax-nvidia-h200-2-cores-of-a-processor.json",
        "latency-jax-tesla-t4-2-cores-of-a-processor.json",
        "latency-jax-2-cores-of-another-processor.json",
    ]
    assert quickness.planes(find(read([tmp_path]))) == []
    other = folders.write_run(tmp_path / "other", model__name="vgg16")
    kept_figures.keep_latency(other, figures(2.0, 2000, "JAX on gpu", **gpu))
    (plane,) = quickness.planes(find(read([tmp_path])))
    assert plane.machine == "NVIDIA H200, 2 cores of a processor" and [each.p50 for each in plane.points] == [
        0.001,
        0.002,
    ]


def test_different_headline_figures_are_not_compared(tmp_path):
    names = ("a", "b", "c", "d")
    for name in names:
        folder = folders.write_run(
            tmp_path / name, val=0.9, seconds=200.0 if name in "ac" else 100.0,
            model__name="vgg16" if name in "ab" else "cnn", model__width=1.0 + names.index(name),
            **({"prune__sparsity": 0.5} if name in "ac" else {}),
        )  # fmt: skip
        summary = json.loads((folder / "summary.json").read_text())
        summary |= {"parameters": 1000, "live_parameters": 100 + names.index(name)}
        if name in "cd":
            kind = {"label": "macro F1", "better": "higher", "percent": True}
            summary |= {"headline": "macro_f1", "headline_kind": kind}
            records = (folder / "metrics.jsonl").read_text()
            (folder / "metrics.jsonl").write_text(records.replace("top1_accuracy", "macro_f1"))
        folders.write_json(folder / "summary.json", summary)
        kept_figures.keep_latency(folder, figures(1.0 + names.index(name), 1000))
    found = find(read([tmp_path]))
    wanted = ["accuracy", "macro F1"]
    planes = quickness.planes(found)
    assert [{point.headline.label for point in plane.points} for plane in planes] == [{each} for each in wanted]
    for fronts in (found.fronts, sizes.fronts(found.families)):
        assert [{setting.headline.label for setting in front["settings"]} for front in fronts] == [
            {each} for each in wanted
        ]
    for table in (contents.tables(found)[name] for name in ("time-to-accuracy", "pareto", "sizes", "latency")):
        place = table.columns.index("figure")
        assert {row[place].text for row in table.rows} == set(wanted), table.name
    with plots.style():
        drawn = [draw() for draw in charts.charts(found)]
    alts = [plot.alt for plot in drawn if plot.name.startswith(("time-to", "latency", "sizes", "pareto"))]
    assert [[each in alt for alt in alts] for each in wanted] == [[True, False] * 4, [False, True] * 4]
    assert len({plot.name for plot in drawn}) == len(drawn)


def test_a_file_that_changed_or_is_gone_leaves_the_plane(tmp_path):
    folder = folders.write_run(tmp_path / "run", model__name="cnn")
    kept_figures.keep_latency(folder, figures(2.0, 1000))
    file = folder / "a.onnx"
    file.write_bytes(b"first")
    kept_figures.keep_verdict(file, verdict(0.5), "val")
    kept_figures.keep_latency(file, figures(1.0, 5))
    assert kept_figures.missing(file) == "" and len(quickness.planes(find(read([tmp_path])))[0].points) == 2
    file.write_bytes(b"other")
    assert quickness.planes(find(read([tmp_path]))) == []
    file.unlink()
    assert quickness.planes(find(read([tmp_path]))) == []


def test_damaged_files_are_passed_over(tmp_path):
    folder = folders.write_run(tmp_path / "run", model__name="cnn")
    (folder / "a.onnx").write_bytes(b"first")
    kept_figures.keep_latency(folder, figures(2.0, 1000))
    digest = hashlib.sha256(b"first").hexdigest()
    whole = figures(1.0, 5) | {"file": "a.onnx"}
    whole |= {"verified": {"sha256": digest, "split": "val", "figures": {"top1_accuracy": 0.5}}}
    kept = folder / "latency-a.onnx-2.json"
    folders.write_json(kept, whole)
    assert len(quickness.planes(find(read([tmp_path])))[0].points) == 2
    one = {"batch": 1, "p50": 0.1, "p99": 0.1}
    for damage in (
        *({"timings": [one | each]} for each in ({"p50": None}, {"p99": "1"}, {"p50": 0}, {"p50": 10**400})),
        {"timings": [{"batch": 1}]}, {"timings": {}}, {"bytes": 0}, {"bytes": "1"}, {"bytes": 1e400}, {"cores": None},
        {"file": 3}, {"file": "../run/a.onnx"}, {"verified": [1]}, {"verified": {"figures": [1], "split": "val"}},
        {"verified": {"figures": {"top1_accuracy": "0.5"}, "split": "val"}},
        {"verified": {"figures": {"top1_accuracy": 0.5}}},
    ):  # fmt: skip
        folders.write_json(kept, whole | damage)
        assert quickness.planes(find(read([tmp_path]))) == [], damage
