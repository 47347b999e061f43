"""A seed that was run more than once is one seed: in tables, spreads, tests of significance, and words."""

import pytest

from jaxcnn.reporting import cautions, charts, classes, contents, page
from jaxcnn.reporting.findings import find
from jaxcnn.reporting.read import read
from jaxcnn.reporting.run_charts import curves
from tests import report_folders as folders


def of(path):
    return find(read([path]))


def only_row(findings):
    table = contents.tables(findings)["results"]
    (row,) = table.rows
    return table.columns, row


def repeat(folder, name, seed, val, **changes):
    """A run whose figures are those of `val`."""
    folders.write_run(folder / name, seed=seed, val=val, test=val, seconds=1000 * val, **changes)


def test_runs_of_one_seed_are_one_seed_in_every_figure(tmp_path):
    for name in ("a", "b", "c"):
        repeat(tmp_path, name, 0, 0.9, confusion=[[8, 2], [1, 9]])
    findings = of(tmp_path)
    (setting,) = findings.settings
    for spread in (setting.validation, setting.test, setting.train_seconds):
        assert spread is not None
        assert (spread.n, spread.std) == (1, None)
    said = cautions.cautions(findings)
    assert any(line.endswith("1 seed, run 3 times, so no spread is known.") for line in said)
    assert not any("differ" in line for line in said)
    columns, row = only_row(findings)
    cells = dict(zip(columns, [cell.text for cell in row], strict=True))
    assert (cells["seeds"], cells["test %"]) == ("1 (run 3 times)", "90.00")
    assert page._card(findings.families[0])["split"] == "test accuracy, 1 seed, run 3 times: no spread known"
    assert {(row["of"], len(row["times"])) for row in findings.times_to_accuracy} == {(1, 1)}
    (table,) = classes.by_class(findings).values()
    assert table.notes == ["The lowest recall first, 1 seed. Recall: the share of a class that is found."]
    assert [cell.text for cell in table.rows[0]] == ["class 0", "80.0", "88.9", "84.2", "class 1", "20.0", "10"]
    caption = charts.confusion(findings.families[0]).caption
    assert "1 seed, 20 predictions" in caption
    assert curves(findings.families[0]).figure.legends[0].get_texts()[0].get_text() == "seed 0"
    assert len(curves(findings.families[0]).figure.legends[0].get_texts()) == 1


def test_where_runs_of_one_seed_differ_their_mean_counts_and_it_is_said(tmp_path):
    for rate in (0.1, 0.2):
        for name, seed, val in (("a", 0, 0.90), ("b", 0, 0.92), ("c", 1, 0.80), ("d", 0, 0.94)):
            repeat(tmp_path, f"{name} {rate}", seed, val + rate / 100, optim__learning_rate=rate)
    findings = of(tmp_path)
    for setting, rate in zip(findings.settings, (0.1, 0.2), strict=True):
        assert setting.validation is not None
        assert setting.validation.values == pytest.approx((0.92 + rate / 100, 0.80 + rate / 100))
    (comparison,) = findings.comparisons
    assert comparison["outcome"].n == (2, 2)
    assert (
        "2 settings have seeds that were run more than once: each counts as one seed, with the mean of its runs. In 2 "
        "of them the results of such runs differ, because sums are rounded differently."
    ) in cautions.cautions(findings)
    table = contents.tables(findings)["settings"]
    assert [row[table.columns.index("seeds")].text for row in table.rows] == [
        "2 (in 4 runs)",
        "2 (in 4 runs)",
    ]


def test_a_seed_that_failed_once_and_then_finished_is_not_lost(tmp_path):
    repeat(tmp_path, "first", 0, 0.9, finished=False)
    repeat(tmp_path, "again", 0, 0.9)
    repeat(tmp_path, "other", 1, 0.9)
    (setting,) = of(tmp_path).settings
    assert (setting.seeds, setting.lost_seeds) == ([0, 1], 0)
    assert not any("flatter" in line for line in cautions.cautions(of(tmp_path)))
