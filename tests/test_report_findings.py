"""Choices are made on validation, figures are those of the runs, and what cannot be known is not claimed."""

import json

import pytest

from jaxcnn import config as configs
from jaxcnn.reporting import cautions, contents, convergence, effect_charts, labels, page, run_tables
from jaxcnn.reporting.findings import effects, find, scattered
from jaxcnn.reporting.read import read
from jaxcnn.reporting.run_charts import curves
from jaxcnn.reporting.write import to_json
from tests import report_folders as folders
from tests import runs

BEST_ON_VALIDATION = {"global_batch_size": 64, "optim.learning_rate": 0.1}
BEST_ON_TEST = {"global_batch_size": 128, "optim.learning_rate": 0.1}


def of(*paths, **options):
    return find(read(list(paths)), **options)


def words(findings) -> str:
    """Everything the report says in words."""
    tables = contents.tables(findings).values()
    cells = [cell.text for table in tables for row in table.rows for cell in row]
    return "\n".join([*cells, *(note for table in tables for note in table.notes), *cautions.cautions(findings)])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return folders.write_sweep(tmp_path_factory.mktemp("report") / "sweep")


def test_the_setting_is_chosen_on_validation_though_another_is_better_on_test(sweep):
    (family,) = of(sweep).families
    assert family.chosen is not None
    assert family.chosen.varied == BEST_ON_VALIDATION
    assert family.chosen.test is not None
    assert max(s.test.mean for s in family.settings if s.test) > family.chosen.test.mean
    assert "highest mean validation accuracy of 4 settings" in family.why


def test_a_best_on_test_row_comes_only_when_asked_for_and_says_what_it_is(sweep):
    assert "est on test" not in words(of(sweep))
    asked = of(sweep, best_on_test=True)
    (family,) = asked.families
    assert family.best_on_test is not None
    assert family.best_on_test.varied == BEST_ON_TEST
    assert family.chosen is not None
    assert family.chosen.varied == BEST_ON_VALIDATION
    assert f"batch size 128, learning rate 0.1 — best on test: {contents.ON_TEST}" in words(asked)
    assert any(contents.ON_TEST in line for line in cautions.cautions(asked))


def test_means_and_spreads_are_over_the_seeds_that_finished(sweep):
    settings = {tuple(s.varied.values()): s for s in of(sweep).settings}
    whole, part = settings[64, 0.1], settings[64, 0.01]
    assert whole.validation is not None
    assert whole.validation.values == (0.93, 0.931, 0.932)
    assert whole.validation.std == pytest.approx(0.001, rel=1e-9)
    assert part.validation is not None
    assert (part.validation.n, part.validation.std) == (1, None)
    assert settings[128, 0.01].states() == {"complete": 1, "pruned": 1}
    assert settings[64, 9.0].finished == []
    assert settings[64, 9.0].states() == {"diverged": 1, "failed": 1}


def test_the_page_says_what_is_missing_and_what_went_wrong(sweep):
    said = cautions.cautions(of(sweep))
    assert "3 planned trials have not started." in said
    assert any(line.startswith("3 trials gave no result: 1 pruned, 1 diverged, 1 failed") for line in said)
    assert any(line.startswith("1 run has not finished") for line in said)
    assert any("may be too good" in line for line in said)
    tables = contents.tables(of(sweep))
    assert [row[-1].text for row in tables["troubles"].rows] == [
        "below the median",
        "step 3 is not finite",
        "no such data",
    ]
    assert len(tables["missing"].rows) == 3
    assert len(tables["runs"].rows) == 11


def test_each_key_has_lines_along_which_nothing_else_changes(sweep):
    effects = {effect.key: effect for effect in of(sweep).effects}
    assert set(effects) == {"global_batch_size", "optim.learning_rate"}
    lines = effects["global_batch_size"].lines
    assert [name for name, _ in lines] == ["learning rate 0.1", "learning rate 0.01"]
    assert [[s.varied["global_batch_size"] for s in line] for _, line in lines] == [[64, 128]] * 2


def test_test_weights_decide_which_validation_figure_counts(tmp_path):
    folders.write_run(tmp_path / "last", val=0.9)
    folders.write_run(tmp_path / "best", val=0.9, run__test_with="best")
    last, best = (of(tmp_path / name).settings[0].validation for name in ("last", "best"))
    assert last is not None
    assert best is not None
    assert (last.mean, best.mean) == (0.9, pytest.approx(0.91))


def test_nothing_is_chosen_where_nothing_was_held_out(tmp_path):
    for seed in (0, 1):
        for rate in (0.1, 0.2):
            folder = tmp_path / f"{rate}-{seed}"
            folders.write_run(folder, val=None, test=0.9 + rate / 10, optim__learning_rate=rate, seed=seed)
    findings = of(tmp_path)
    (family,) = findings.families
    assert family.chosen is None
    assert "nothing was held out" in family.why
    assert any("protocol=full" in line for line in cautions.cautions(findings))
    assert len(curves(family).figure.axes) == 1  # of the loss alone: there is no accuracy to draw


def test_figures_with_augmentation_stand_beside_those_without_in_every_table(sweep):
    findings = of(runs.ROOT / "results" / "speedrun_cifar10")
    for table in (contents.settings(findings), run_tables.runs(findings)):
        (row,) = table.rows
        told = dict(zip(table.columns, (cell.text for cell in row), strict=True))
        assert (told["test %"], told["test with TTA %"]) == ("93.52", "94.39")
    assert "test with TTA %" not in contents.settings(of(sweep)).columns
    assert len(curves(of(sweep).families[0]).figure.axes) == 2


def test_one_seed_says_that_no_spread_is_known(tmp_path):
    findings = of(folders.write_run(tmp_path / "one"))
    assert any("one seed only, so no spread is known" in line for line in cautions.cautions(findings))
    cells = {c: cell.text for c, cell in zip(*_only_row(findings, "results"), strict=True)}
    assert (cells["test %"], cells["seeds"]) == ("93.00", "1")


def _only_row(findings, name):
    table = contents.tables(findings)[name]
    (row,) = table.rows
    return table.columns, row


def test_the_papers_figure_stands_beside_only_what_it_can_be_compared_with(tmp_path):
    (family,) = of(folders.write_run(tmp_path / "vgg")).families
    assert family.paper == pytest.approx(0.927)
    columns, row = _only_row(of(tmp_path / "vgg"), "results")
    assert dict(zip(columns, [c.text for c in row], strict=True))["vs paper"] == "+0.30"
    (npz,) = of(folders.write_run(tmp_path / "npz", data__source="npz:/some/where/cifar10.npz")).families
    assert npz.paper == pytest.approx(0.927)
    for name, changes in {"part": {"data__train_split": "train[:10%]"}, "other": {"data__source": "digits"}}.items():
        (family,) = of(folders.write_run(tmp_path / name, **changes)).families
        assert family.paper is None
    narrow = of(folders.write_run(tmp_path / "narrow", model__width=0.0625))
    assert any("1/16 of the full width" in line for line in cautions.cautions(narrow))


def test_times_of_different_machines_are_not_compared(tmp_path):
    for name in ("one processor", "another"):
        for seed in (0, 1):
            for rate in (0.1, 0.2):
                folders.write_run(
                    tmp_path / f"{name} {seed} {rate}", seed=seed, environment={"processor": name},
                    optim__learning_rate=rate, model__name="vgg16" if name == "another" else "alexnet",
                )  # fmt: skip
    findings = of(tmp_path)
    assert [(front["machine"], len(front["settings"])) for front in findings.fronts] == [
        ("2 cores of one processor", 2), ("2 cores of another", 2),
    ]  # fmt: skip
    assert any("2 different machines" in line for line in cautions.cautions(findings))
    assert "machine" in contents.tables(findings)["results"].columns


def test_trials_that_ran_at_once_are_told_of(tmp_path):
    folder = folders.write_sweep(tmp_path)
    assert not any("at the same time" in line for line in cautions.cautions(of(folder)))
    trial = folder / "trials" / "0000" / "trial.json"
    trial.write_text(trial.read_text().replace("00:00:50", "00:01:30"))
    assert any("at the same time" in line for line in cautions.cautions(of(folder)))


def test_time_to_accuracy_is_the_first_evaluation_that_reached_it(tmp_path):
    for seed, val in ((0, 0.96), (1, 0.85)):
        folders.write_run(tmp_path / str(seed), seed=seed, val=val, seconds=300.0)
    rows = {row["target"]: row for row in of(tmp_path).times_to_accuracy}
    # Evaluations are at 100, 200 and 300 s, of 0.8, 0.9 and 1.0 times `val`: 0.768, 0.864, 0.96 and 0.68, 0.765, 0.85.
    assert list(rows) == [0.94, 0.95, 0.96]
    assert rows[0.95]["times"] == [300.0]
    assert rows[0.95]["of"] == 2


def test_time_to_convergence_is_that_of_the_first_evaluation_as_good_as_the_last(tmp_path):
    for seed, values in enumerate(([0.5, 0.9, 0.902, 0.905], [0.5, 0.8994, 0.905, 0.9045], [0.91, 0.92, 0.9, 0.9])):
        folder = folders.write_run(tmp_path / str(seed), seed=seed)
        records = [
            {"kind": "val", "step": step, "epoch": step, "train_seconds": 10.0 * step, "top1_accuracy": value}
            for step, value in enumerate(values, start=1)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    findings = of(tmp_path)
    (setting,) = findings.settings
    assert convergence.seconds(setting).values == (20.0, 30.0, 10.0)
    table = contents.tables(findings)["settings"]
    assert table.rows[0][table.columns.index("to convergence")].number == 20.0
    assert convergence.NOTE in table.notes
    (told,) = to_json(findings)["settings"]
    assert told["seconds_to_convergence"]["mean"] == 20.0


def test_a_run_with_one_evaluation_tells_nothing_of_convergence(tmp_path):
    folder = folders.write_run(tmp_path)
    lines = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"val"' in line]
    (folder / "metrics.jsonl").write_text(lines[-1] + "\n")
    findings = of(tmp_path)
    assert convergence.seconds(findings.settings[0]) is None
    assert "to convergence" not in contents.tables(findings)["settings"].columns


def test_speed_over_devices_comes_from_runs_too(tmp_path):
    for devices, speed in ((1, 1000.0), (4, 3500.0)):
        folder = folders.write_run(
            tmp_path / str(devices), device=f"{devices} x NVIDIA H100", parallel__devices=devices
        )
        summary = folder / "summary.json"
        summary.write_text(summary.read_text().replace("1000.0", str(speed)))
    (scaling,) = of(tmp_path).scalings
    (curve,) = scaling.curves.values()
    assert [(row["devices"], row["speedup"], row["efficiency"]) for row in curve] == [(1, 1.0, 1.0), (4, 3.5, 0.875)]


def test_curves_of_a_scaling_file_are_told_apart(tmp_path):
    rows = [
        {"model": model, "mode": mode, "over": "devices", "devices": devices, "images_per_second": 100.0 * devices}
        for model in ("alexnet", "vgg16")
        for mode in ("strong", "weak")
        for devices in (2, 1)
    ]
    folders.write_json(tmp_path / "scaling.json", {"mode": "strong+weak", "rows": [*rows, {"devices": "?"}, 7]})
    findings = of(tmp_path)
    assert [list(s.curves) for s in findings.scalings] == [["strong scaling", "weak scaling"]] * 2
    assert all([row["devices"] for row in c] == [1, 2] for s in findings.scalings for c in s.curves.values())


def evolve(folder, number, **record):
    """Tell in the folder of a sweep that a trial went on from the weights of another."""
    path = folder / "trials" / f"{number:04}" / "trial.json"
    exchange = {"kind": "pbt", "step": 10, "from": 0, "learning_rate": 0.08, "weight_decay": 1e-4} | record
    folders.write_json(path, json.loads(path.read_text()) | {"pbt": [exchange]})


def test_what_went_on_from_the_weights_of_others_says_so_and_tells_nothing_of_its_first_rates(tmp_path):
    folder = folders.write_sweep(tmp_path / "sweep")
    before = of(folder)
    assert before.comparisons
    assert not any("population-based" in line for line in cautions.cautions(before))
    (family,) = before.families
    assert effect_charts.grid_keys(family) is not None
    for number in (0, 1, 2):  # all seeds of the chosen setting
        evolve(folder, number)
    after = of(folder)
    (family,) = after.families
    assert family.chosen is not None
    assert (family.chosen.evolved, family.chosen.label) == (3, "batch size 64, learning rate 0.1, at first")
    assert family.runner_up is None
    assert after.comparisons == []
    assert all(family.chosen not in line for effect in after.effects for _, line in effect.lines)
    assert after.effects, "the others still show something"
    assert any(line.startswith("3 runs of population-based training continued") for line in cautions.cautions(after))
    rows = {row[3].text: row[0].text for row in contents.tables(after)["settings"].rows}
    assert "evolved" in next(iter(contents.tables(after)["settings"].rows))[0].text, rows
    assert after.settings[0].to_json()["evolved"] == 3


def test_every_key_of_a_config_has_a_name_of_its_own():
    keys = configs.flatten(configs.to_dict(configs.Config()))
    named = [labels.key(key) for key in keys]
    assert sorted({name for name in named if named.count(name) > 1}) == []
    assert labels.key("norm.momentum") == "BatchNorm momentum"
    assert labels.key("optim.momentum") == "optimiser momentum"
    assert labels.key("optim.learning_rate") == "learning rate"


def test_how_processes_found_each_other_makes_no_other_setting(tmp_path):
    for seed, processes in ((0, 1), (1, 2)):
        folders.write_run(tmp_path / str(seed), seed=seed, hosts__processes=processes, hosts__coordinator=f"h{seed}:1")
    (setting,) = of(tmp_path).settings
    assert len(setting.runs) == 2


def test_two_folders_of_images_with_one_name_are_two_data_sets_and_copies_of_a_known_one_are_not(tmp_path):
    for name in ("a", "b"):
        folders.write_run(tmp_path / "photos" / name, data__source=f"folder:/{name}/photos")
        folders.write_run(tmp_path / "cifar" / name, data__source=f"npz:/{name}/cifar10.npz")
    assert [f.dataset for f in of(tmp_path / "photos").families] == ["photos (/a/photos)", "photos (/b/photos)"]
    (family,) = of(tmp_path / "cifar").families
    assert family.dataset == "CIFAR-10"


def test_a_search_under_way_says_how_many_trials_have_been_drawn(tmp_path):
    folder = folders.write_sweep(tmp_path / "sweep")
    facts = json.loads((folder / "sweep.json").read_text())
    folders.write_json(folder / "sweep.json", facts | {"planned": None, "trials": 50, "sampler": "tpe"})
    (folder / "trials" / "0099").mkdir()  # a folder with its lock, of a trial that is being drawn
    findings = of(folder)
    assert "11 of 50 trials of the search batch_and_rate have been drawn." in cautions.cautions(findings)
    assert page._sweep(findings.material.sweeps[0])["facts"]["trials"] == "11 begun of 50, drawn one after the other"
    folders.write_json(folder / "sweep.json", facts | {"planned": None, "trials": 11, "sampler": "tpe"})
    assert not any("drawn" in line for line in cautions.cautions(of(folder)))


def test_numbers_that_are_drawn_at_random_are_scattered_and_others_are_not(tmp_path):
    for number, rate in enumerate((0.011, 0.043, 0.12, 0.3)):
        folders.write_run(
            tmp_path / str(number), val=0.9 - rate / 10, optim__learning_rate=rate, optim__weight_decay=rate**2,
            optim__momentum=0.9 if number < 3 else 0.8,
        )  # fmt: skip
    (family,) = of(tmp_path).families
    assert effects(family) == []
    found = dict(scattered(family))
    assert {key: len(members) for key, members in found.items()} == {"optim.learning_rate": 4, "optim.weight_decay": 4}
    assert scattered(of(folders.write_sweep(tmp_path / "grid")).families[0]) == []


def test_times_have_their_spread_and_its_unit(tmp_path):
    for seed, seconds in enumerate((590.0, 600.0, 640.0)):
        folders.write_run(tmp_path / str(seed), seed=seed, seconds=seconds)
    columns, row = _only_row(of(tmp_path), "results")
    assert dict(zip(columns, [cell.text for cell in row], strict=True))["training"] == "10.2 ± 0.4 min"


def test_equal_settings_are_said_to_show_no_difference(tmp_path):
    for seed in (0, 1):
        for rate in (0.1, 0.2):
            folders.write_run(tmp_path / f"{rate} {seed}", seed=seed, val=0.9, optim__learning_rate=rate)
    (line,) = [line for line in cautions.cautions(of(tmp_path)) if "second" in line]
    assert line.endswith("the second (learning rate 0.2) show no difference (n = 2 and 2).")


def test_every_published_figure_is_cited(root):
    published = of(root / "results").published
    for figure in published["figures"]:
        assert {"network", "accuracy", "authors", "year", "title", "augmentation", "statistic"} <= figure.keys()
        assert "arxiv" in figure or ("url" in figure and "code repository" in figure["authors"])
        assert 0 < figure["accuracy"] < 100
    paper = {(f["model"], f["data"]): f["accuracy"] for f in published["seed_paper"]["figures"]}
    for config in (root / "configs").glob("*_cifar10*.py"):
        text = config.read_text()
        model, data = config.stem.split("_")
        if "Ashraf et al. report" in text:
            assert f"{paper[model, data]} %" in text


def test_what_networks_cost_is_told_where_their_parameters_differ(tmp_path):
    for attention, parameters in (("none", 1000), ("se", 1234)):
        for seed in (0, 1):
            folder = folders.write_run(tmp_path / f"{attention}{seed}", model__attention=attention, seed=seed)
            summary = json.loads((folder / "summary.json").read_text())
            summary |= {"parameters": parameters, "training_flops_per_image": 1.5e6}
            summary |= {"training_working_bytes": 3 * 2**20} if attention == "se" else {}
            folders.write_json(folder / "summary.json", summary)
    table = contents.tables(of(tmp_path))["costs"]
    rows = {row[table.columns.index("setting")].text: [cell.text for cell in row] for row in table.rows}
    assert rows["attention se"][-4:-1] == ["1,234", "1.5 M", "3.0 MiB"]
    assert rows["attention none"][-4:-2] == ["1,000", "1.5 M"] and "MiB" not in rows["attention none"][-2]
    assert "costs" not in contents.tables(of(tmp_path / "se0", tmp_path / "se1"))
