"""A report of runs whose latency was kept has the plane of accuracy, size and latency, and its front."""

import hashlib
import json

from jaxcnn.deploy import kept_figures
from jaxcnn.deploy.verify import Verdict
from jaxcnn.reporting import charts, contents, plots, quickness, time_charts
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
    kept_figures.keep_latency(large, figures(8.0, 4000), 2)
    kept_figures.keep_latency(small, figures(1.0, 1000), 2)
    kept_figures.keep_latency(worse, figures(1.5, 1000), 2)
    kept_figures.keep_latency(small, figures(0.1, 1, cores=1), 1)  # alone on its number of cores
    file = large / "model.int8.onnx"
    file.write_bytes(b"a network")
    kept_figures.keep_verdict(file, verdict(0.94), "val")
    kept_figures.keep_latency(file, figures(4.0, 1500, "ONNX Runtime on cpu"), 2)
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
    kept_figures.keep_latency(folder, figures(1.0, 1000), 2)
    file = folder / "a.onnx"
    file.write_bytes(b"first")
    kept_figures.keep_verdict(file, verdict(0.5), "val")
    told = json.loads((folder / "a.onnx.verified.json").read_text())
    assert told["sha256"] == hashlib.sha256(b"first").hexdigest() and told["figures"]["top1_accuracy"] == 0.5
    file.write_bytes(b"second")
    kept = kept_figures.keep_latency(file, figures(1.0, 6), 2)
    assert json.loads(kept.read_text())["verified"] is None
    (folder / "latency-cut-2.json").write_text('{"timings": [')
    (folder / "latency-list-2.json").write_text('{"timings": [1], "bytes": 2, "cores": 2}')
    assert quickness.planes(find(read([tmp_path]))) == []
    elsewhere = tmp_path / "b.onnx"
    elsewhere.write_bytes(b"alone")
    assert kept_figures.keep_latency(elsewhere, figures(1.0, 5), 2) is None and len(list(tmp_path.iterdir())) == 2
