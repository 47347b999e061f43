"""The tables of a report that list runs and their origin."""

from jaxcnn.reporting import labels, provenance
from jaxcnn.reporting.findings import Findings
from jaxcnn.reporting.read import COMPLETE, REPEATED, Run
from jaxcnn.reporting.settings import test_figure, validation_figure
from jaxcnn.reporting.tables import Cell, Table, number, text

SEED = frozenset({"seed"})


def all_of(findings: Findings) -> list[Table]:
    """The tables of this module; some may have no rows."""
    made = (troubles, unfinished, missing, runs, configs, environments)
    return [table(findings) for table in made]


def troubles(findings: Findings) -> Table:
    """A table of the trials that failed, diverged or were pruned, with their reasons."""
    rows = [_trouble(run) for run in findings.troubles]
    return Table(
        "troubles", "Failed, diverged and pruned trials", ["run", "state", "setting", "seed", "reason"], rows, SEED
    )


def unfinished(findings: Findings) -> Table:
    """A table of the runs that have started or wait."""
    rows = [_trouble(run) for run in findings.unfinished]
    return Table("unfinished", "Not finished", ["run", "state", "setting", "seed", "progress"], rows, SEED)


def _trouble(run: Run) -> list[Cell]:
    overrides = (run.trial or {}).get("overrides") or {}
    told = labels.setting({k: of for k, of in overrides.items() if k != "seed"}) or labels.architecture(run.config)
    seed = "–" if run.seed is None else str(run.seed)
    return [
        text(run.name),
        text(run.state),
        text(told),
        number(run.seed, seed),
        text(run.reason or "no reason recorded"),
    ]


def missing(findings: Findings) -> Table:
    """A table of the planned trials without a folder."""
    rows = [
        [text(m["sweep"]), text(labels.setting(m.get("overrides") or {}) or "as configured"), text(m.get("seed", "–"))]
        for m in findings.missing
    ]
    return Table("missing", "Planned trials that did not run", ["sweep", "setting", "seed"], rows, SEED)


def runs(findings: Findings) -> Table:
    """A table with a row for each run."""
    of = {id(run): s for s in findings.settings for run in s.runs}
    augmented = any(s.augmented_test for s in findings.settings)
    rows = []
    for run in findings.material.runs:
        summary = run.summary or {}
        validation, *tests = validation_figure(run), test_figure(run), *[test_figure(run, "tta_")] * augmented
        setting = of[id(run)]
        rows.append([
            text(run.name), text(setting.dataset), text(setting.architecture),
            text(setting.described), number(run.seed, "–" if run.seed is None else str(run.seed)),
            text(run.reason if run.state == REPEATED else run.state),
            number(validation, labels.figure(validation, run.headline)),
            *(number(test, labels.figure(test, run.headline)) for test in tests),
            number(summary.get("train_seconds"), labels.seconds(summary.get("train_seconds"))),
            number(summary.get("wall_seconds"), labels.seconds(summary.get("wall_seconds"))),
            number(summary.get("starts"), str(summary.get("starts", "–"))), text("; ".join(run.notes)),
        ])  # fmt: skip
    columns = ["run", "data", "network", "setting", "seed", "state", "validation %", "test %"]
    columns += ["test with TTA %"] * augmented + ["training", "whole run", "starts", "remarks"]
    numeric = frozenset(columns[columns.index("state") + 1 : -1]) | {"seed"}
    if not any(run.notes for run in findings.material.runs):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table("runs", "All runs", columns, rows, numeric)


def configs(findings: Findings) -> Table:
    """A table of the differences of configs from jaxcnn's defaults, keys common to all settings first."""
    changes = [provenance.changed(s.config) for s in findings.settings if any(r.whole_config for r in s.runs)]
    keys = sorted({key for one in changes for key in one})
    rows = []
    for key in keys:
        default = next(one[key][1] for one in changes if key in one)
        values = [labels.value(one[key][0] if key in one else default) for one in changes]
        distinct = list(dict.fromkeys(values))
        shown = "; ".join(distinct[:8]) + (f"; … ({len(distinct)} values)" if len(distinct) > 8 else "")
        rows.append(
            [text(key), text(shown), text(labels.value(default)), text("all" if len(distinct) == 1 else "varied")]
        )
    rows.sort(key=lambda row: (row[3].text, row[0].text))
    columns = ["key", "values", "default", "settings"]
    notes = ["Every other key is at its default (docs/config_fields.md); each run's config.json has all of them."]
    return Table("configs", "Configuration: values that are not the default", columns, rows, notes=notes)


def environments(findings: Findings) -> Table:
    """A table of the machines and versions of the runs."""
    rows = []
    for one in provenance.environments(findings.material.runs):
        versions = ", ".join(f"{name} {version}" for name, version in one["packages"].items() if version)
        rows.append([
            text(one["machine"]), number(one["runs"], str(one["runs"])), text(one["commit"] or "–"),
            text(f"Python {one['python']}, {versions}"), text(one["platform"] or "–"),
        ])  # fmt: skip
    without = sum(run.state == COMPLETE and not run.environment for run in findings.material.runs)
    notes = [f"{labels.count(without, 'finished run')} without environment.json."] if without else []
    columns = ["machine", "runs", "commit", "versions", "platform"]
    return Table("environments", "Machines and versions", columns, rows, frozenset({"runs"}), notes)
