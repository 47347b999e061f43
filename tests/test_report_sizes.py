"""A report of pruned networks has the plane of accuracy and size, and its front."""

import json

from jaxcnn.reporting import charts, contents, plots, sizes, time_charts
from jaxcnn.reporting.findings import find
from jaxcnn.reporting.read import read
from tests import report_folders as folders


def run(folder, val, parameters, live=None, **changes):
    folders.write_run(folder, val=val, **changes)
    summary = json.loads((folder / "summary.json").read_text()) | {"parameters": parameters}
    folders.write_json(folder / "summary.json", summary | ({} if live is None else {"live_parameters": live}))


def test_the_front_has_the_settings_that_no_other_is_smaller_and_more_accurate_than(tmp_path):
    run(tmp_path / "whole", 0.90, 1000)
    run(tmp_path / "half", 0.92, 1000, 500, prune__sparsity=0.5)
    run(tmp_path / "less", 0.88, 1000, 100, prune__sparsity=0.9)
    run(tmp_path / "worse", 0.80, 1000, 200, prune__sparsity=0.8)
    for seed, live in ((0, 20), (1, 40)):  # the mean over seeds
        run(tmp_path / f"least{seed}", 0.5, 1000, live, prune__sparsity=0.97, seed=seed)
    found = find(read([tmp_path]))
    (front,) = sizes.fronts(found.families)
    assert len(front["settings"]) == 5
    assert [sizes.live(setting) for setting in front["front"]] == [30, 100, 500]
    rows = contents.tables(found)["sizes"].rows
    assert [[cell.text for cell in row][:2] for row in rows] == [
        [setting.title, f"{sizes.live(setting):,.0f}"] for setting in front["front"]
    ]
    with plots.style():
        (plot,) = [draw() for draw in charts.charts(found) if draw.func is time_charts.by_size]
    assert plot.name.startswith("sizes") and "the front has 3 settings" in plot.alt


def test_networks_that_were_not_pruned_have_no_such_front(tmp_path):
    run(tmp_path / "small", 0.8, 100, model__name="cnn")
    run(tmp_path / "large", 0.9, 1000)
    found = find(read([tmp_path]))
    assert sizes.fronts(found.families) == [] and "sizes" not in contents.tables(found)
