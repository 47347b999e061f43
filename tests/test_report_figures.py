"""A report of any task names the task's own headline figure, and shows what a single run left to see."""

import io
import json

import pytest
from PIL import Image

from jaxcnn.reporting import classes, contents, detectors, more_figures, screening, settings, write
from jaxcnn.reporting.detectors import has_curves
from jaxcnn.reporting.findings import find
from jaxcnn.reporting.read import read
from jaxcnn.train import workdir
from tests import report_folders as folders

TASKS = {
    "regression": ("mean_absolute_error", {"label": "mean absolute error", "better": "lower", "percent": False}),
    "multilabel": ("mean_average_precision", {"label": "mean average precision", "better": "higher", "percent": True}),
    "detection": ("ap", {"label": "AP", "better": "higher", "percent": True}),
}


def run_of(task, folder, value, **changes):
    """A run of a task whose headline figure on validation and on the test is `value`."""
    name, kind = TASKS[task]
    folders.write_run(folder, val=value, test=value, **{"task__name": task} | changes)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [{key.replace("top1_accuracy", name): of for key, of in line.items()} for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = json.loads((folder / "summary.json").read_text())
    summary |= {"headline": name, "headline_kind": kind, "test": {"loss": 0.3, name: value, "examples": 10}}
    summary["val_best"] = {kind["label"].replace(" ", "_"): value, "step": 20}
    folders.write_json(folder / "summary.json", summary)


@pytest.mark.parametrize(("task", "best", "shown"), [("regression", 2.5, "2.5"), ("multilabel", 0.75, "75.00 %")])
def test_a_report_names_the_figure_of_the_task_and_chooses_by_it(task, best, shown, tmp_path):
    worse = 3.5 if task == "regression" else 0.5
    run_of(task, tmp_path / "a", best, optim__learning_rate=0.1, run__test_with="best")
    run_of(task, tmp_path / "b", worse, optim__learning_rate=0.2)
    findings = find(read([tmp_path]))
    (family,) = findings.families
    assert family.chosen.validation.mean == family.chosen.test.mean == best
    label = TASKS[task][1]["label"]
    assert f"{'lowest' if task == 'regression' else 'highest'} mean validation {label}" in family.why
    remarks = write.report([tmp_path], tmp_path / "out", command="report")
    assert not [remark for remark in remarks if "could not be drawn" in remark]
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"test {label}" in page
    number, unit = shown.partition(" ")[::2]
    assert f'<p class="figure">{number}<span class="unit">{" " + unit if unit else ""}</span>' in page
    assert "validation accuracy" not in page.lower() and "test accuracy" not in page.lower()
    assert ("validation %" in page) == (task == "multilabel")


def test_runs_that_other_figures_judge_are_not_ranked_together(tmp_path):
    """`task.monitor` of one of them: a mean absolute error of 2.5 is no better and no worse than an accuracy."""
    folders.write_run(tmp_path / "a", val=0.9, test=0.9, optim__learning_rate=0.1)
    run_of("regression", tmp_path / "b", 2.5, optim__learning_rate=0.2, task__name="classification")
    one, other = find(read([tmp_path])).families
    assert [len(family.settings) for family in (one, other)] == [1, 1]
    assert [family.dataset for family in (one, other)] == [
        "CIFAR-10, judged by accuracy", "CIFAR-10, judged by mean absolute error"
    ]  # fmt: skip
    assert not [line for line in write.report([tmp_path], tmp_path / "out", command="report") if "drawn" in line]


def test_a_headline_that_somebody_changed_is_noted_and_accuracy_is_taken(tmp_path):
    folders.write_run(tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    folders.write_json(tmp_path / "run" / "summary.json", summary | {"headline_kind": {"label": 3}})
    (run,) = read([tmp_path]).runs
    assert run.headline.label == "accuracy"
    assert "summary.json: headline_kind cannot be read" in run.notes


def test_a_run_whose_length_is_in_steps_is_described_by_them(tmp_path):
    folders.write_run(tmp_path / "run", global_batch_size=64, optim__learning_rate=0.2, run__epochs=30.0, run__steps=40)
    (setting,) = settings.group(read([tmp_path]).runs)
    assert setting.described == "batch size 64, learning rate 0.2, steps 40"


def test_one_run_shows_validation_loss_learning_rate_settings_and_its_hardest_images(tmp_path):
    folders.write_run(tmp_path / "run", global_batch_size=64, optim__learning_rate=0.2, run__epochs=3.0)
    picture = io.BytesIO()
    Image.new("RGB", (30, 20)).save(picture, "png")
    (tmp_path / "run" / "hardest.png").write_bytes(picture.getvalue())
    write.report([tmp_path / "run"], tmp_path / "out", command="report")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "batch size 64, learning rate 0.2, epochs 3" in page
    assert "as configured" not in page
    assert "Training and validation loss" in page and "Learning rate of" in page
    assert page.count('src="data:image/png;base64,') == 1
    names = {path.name.partition("-")[0] for path in (tmp_path / "out" / "plots").glob("*.png")}
    assert {"curves", "learning", "hardest"} <= names
    (tmp_path / "run" / "hardest.png").write_bytes(b"no picture")
    write.report([tmp_path / "run"], tmp_path / "out", command="report")
    assert "data:image" not in (tmp_path / "out" / "report.html").read_text()


def test_further_figures_of_the_test_are_a_table_with_the_spread_over_seeds(tmp_path):
    for seed, balanced in enumerate((0.8, 0.9)):
        folders.write_run(tmp_path / f"a{seed}", seed=seed, confusion=[[9, 1], [0, 10]])
        path = tmp_path / f"a{seed}" / "test.json"
        told = {"balanced_accuracy": balanced, "macro_auroc": 0.75, "top5_accuracy": 1.0, "of_my_own": 2.5}
        workdir.write_sealed(path, json.loads(path.read_text()) | told)
    (table,) = more_figures.by_family(find(read([tmp_path]))).values()
    assert table.columns == ["setting", "seeds", "balanced accuracy %", "AUROC %", "loss", "of my own"]
    assert [cell.text for cell in table.rows[0][1:]] == ["2", "85.00 ± 7.07", "75.00 ± 0.00", "0.3 ± 0", "2.5 ± 0"]


def test_the_classes_of_a_report_have_recall_precision_f1_and_auroc(tmp_path):
    for seed, right in enumerate((9, 7)):
        folders.write_run(tmp_path / f"a{seed}", seed=seed, confusion=[[right, 10 - right], [0, 10]])
        path = tmp_path / f"a{seed}" / "test.json"
        screening = {"class 0": {"auroc": 0.75 + 0.25 * seed}, "class 1": {"auroc": None}}
        workdir.write_sealed(path, json.loads(path.read_text()) | {"screening": screening})
    (table,) = classes.by_class(find(read([tmp_path]))).values()
    first, second = ([cell.text for cell in row] for row in table.rows)
    assert table.columns[:5] == ["class", "recall %", "precision %", "F1 %", "AUROC %"]
    assert first[:5] == ["class 0", "80.0 ± 14.1", "100.0 ± 0.0", "88.5 ± 8.8", "87.5 ± 17.7"]
    assert second[:5] == ["class 1", "100.0 ± 0.0", "83.9 ± 9.9", "91.1 ± 5.9", "\N{EN DASH}"]  # 10 of 11 and 13


def test_an_evaluation_without_a_class_does_not_count_for_it(tmp_path):
    for seed, matrix in enumerate(([[9, 1], [0, 10]], [[0, 0], [5, 5]])):
        folders.write_run(tmp_path / f"a{seed}", seed=seed)
        path = tmp_path / f"a{seed}" / "test.json"
        folders.write_json(path, {"top1_accuracy": 0.5, "loss": 0.3, "confusion_matrix": matrix})
    (table,) = classes.by_class(find(read([tmp_path]))).values()
    assert {row[0].text: row[1].text for row in table.rows} == {"1": "75.0 ± 35.4", "0": "90.0"}


@pytest.mark.parametrize("steps, epochs, shown", [(580, 580 / (1237 / 64), "30"), (40, 40 / (1237 / 64), "2.07")])
def test_a_report_tells_epochs_as_the_terminal_does(tmp_path, steps, epochs, shown):
    folders.write_run(tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    folders.write_json(path, json.loads(path.read_text()) | {"steps": steps, "epochs": epochs})
    results = contents.results(find(read([tmp_path])))
    assert results.rows[0][results.columns.index("epochs")].text == shown


def test_a_report_has_f1_at_chosen_thresholds_and_r2_of_a_single_number(tmp_path):
    run_of("multilabel", tmp_path / "m", 0.5)
    f1 = {"at_half": {"micro_f1": 0.1}, "at_thresholds": {"micro_f1": 0.2}}
    folders.write_json(tmp_path / "m" / "test.json", {"mean_average_precision": 0.5, "loss": 0.3} | f1)
    run_of("regression", tmp_path / "r", 2.0, data__source="npz:nuclei.npz")
    folders.write_json(tmp_path / "r" / "test.json", {"mean_absolute_error": 2.0, "by_name": {"nuclei": {"r2": 0.5}}})
    tables = more_figures.by_family(find(read([tmp_path]))).values()
    shown = {column: cell.text for table in tables for column, cell in zip(table.columns, table.rows[0], strict=True)}
    assert (shown["micro F1 %"], shown["R²"]) == ("20.00", "0.5")


def test_settings_of_a_task_are_named_by_what_is_switched_on(tmp_path):
    ways = [{}, {"task__class_weights": "auto"}, {"task__focal_gamma": 2.0}, {"data__sampling": "balanced"}]
    for number, way in enumerate(ways):
        folders.write_run(tmp_path / str(number), **way)
    labels = [setting.label for setting in find(read([tmp_path])).settings]
    assert labels == ["baseline", "class weights auto", "focal gamma 2", "sampling balanced"]


def detector(folder, ap, matrix, **changes):
    """A run of a detector of two classes, with the figures of its test."""
    run_of("detection", folder, ap, **changes)
    rising = [round(1 - k / 200, 3) for k in range(101)]
    figures = {
        "ap": ap, "ap50": 0.75, "loss": 0.3,
        "ap_by_class": {"<b>cell": ap, "dust": None},
        "matched": {"of": "boxes", "score": 0.25, "overlap": 0.5},
        "confusion_classes": ["<b>cell", "dust", "background"], "confusion_matrix": matrix,
        "curves": {"mean": {"0.5": rising, "0.75": rising[::-1]}, "by_class": {"<b>cell": rising, "dust": None}},
    }  # fmt: skip
    folders.write_json(folder / "test.json", figures)


def test_a_report_of_a_detector_has_its_classes_with_background_and_precision_over_recall(tmp_path):
    detector(tmp_path / "a", 0.5, [[6, 1, 3], [2, 2, 0], [4, 0, 0]], seed=0)
    detector(tmp_path / "b", 0.7, [[8, 1, 1], [2, 2, 0], [2, 0, 0]], seed=1)
    remarks = write.report([tmp_path], tmp_path / "out", command="report")
    assert not [remark for remark in remarks if "could not be drawn" in remark]
    tables = json.loads((tmp_path / "out" / "report.json").read_text())["tables"]
    (table,) = [table for name, table in tables.items() if name.startswith("classes-")]
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    assert list(rows) == ["dust", "<b>cell"], "the lowest recall first, without the background"
    cell = rows["<b>cell"]
    assert (cell["AP %"], cell["recall %"], cell["missed %"]) == ("60.00 ± 14.14", "70.0", "20.0")
    assert cell["precision %"] == "58.3"  # 14 of 24
    assert (cell["most often taken for"], cell["share %"], cell["objects"]) == ("dust", "10.0", "10")
    assert rows["dust"]["AP %"] == "\N{EN DASH}" and rows["dust"]["most often taken for"] == "<b>cell"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Precision over recall of" in page and "missed objects and false finds" in page
    assert "&lt;b&gt;cell" in page and "<b>cell" not in page
    names = {path.name.split("-")[0] for path in (tmp_path / "out" / "plots").glob("*.svg")}
    assert {"precision", "confusion"} <= names
    assert "AP50 %" in page


def test_a_report_of_screening_draws_sensitivity_over_false_alarms_and_precision_over_recall(tmp_path):
    rising, path = [round(k / 100, 2) for k in range(101)], tmp_path / "a" / "test.json"
    folders.write_run(tmp_path / "a", confusion=[[9, 1], [0, 10]])
    figures = json.loads(path.read_text())
    of_class = {"roc": rising, "precision": rising[::-1]}
    sound = {"healthy": of_class, "<b>ill": of_class}
    for told, drawn in (
        (sound, True),
        ({"ill": {"roc": rising}}, False),
        ({"ill": {"roc": rising[1:], "precision": rising}}, False),
        (["x"], False),
    ):
        folders.write_json(path, figures | {"screening_curves": told})
        (family,) = find(read([tmp_path])).families
        assert screening.has_curves(family) == drawn
    folders.write_json(path, figures | {"screening_curves": sound})
    remarks = write.report([tmp_path], tmp_path / "out", command="report")
    assert not [remark for remark in remarks if "could not be drawn" in remark]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Sensitivity over false alarms" in page and "&lt;b&gt;ill: area" in page and "healthy: area" not in page


def test_curves_and_matrices_that_somebody_changed_are_left_out(tmp_path):
    detector(tmp_path / "a", 0.5, [[6, 1, 3], [2, 2, 0], [4, 0, 0]])
    path = tmp_path / "a" / "test.json"
    figures = json.loads(path.read_text())
    for change in (
        {"matched": 3},
        {"curves": {"mean": {"0.5": ["x"] * 101}, "by_class": 7}},
        {"confusion_classes": 5, "ap_by_class": []},
        {"confusion_matrix": [[1]]},
    ):
        folders.write_json(path, figures | change)
        findings = find(read([tmp_path]))
        (family,) = findings.families
        assert has_curves(family) == ("curves" not in change)
        tables = detectors.by_class(findings)
        assert len(tables) == (change.keys() <= {"curves", "confusion_classes", "ap_by_class"})
