"""The tables of a report, made from its findings."""

import dataclasses
from typing import Any

from jaxcnn.reporting import convergence, costs, labels, quickness, run_tables, sizes
from jaxcnn.reporting.findings import Findings
from jaxcnn.reporting.scaling import Scaling
from jaxcnn.reporting.settings import Setting, sample_noun
from jaxcnn.reporting.statistics import ACCURACY, Spread
from jaxcnn.reporting.tables import Cell, Table, number, text

ON_TEST = "chosen on the test split (--best_on_test), so biased upwards"
NOTHING = text("–")
CONSTANT = ("data", "network", "machine", "starts", "figure")  # columns left out if equal in all rows


def tables(findings: Findings) -> dict[str, Table]:
    """The tables of a report that have rows, by name, in order."""
    made = [
        results(findings), published(findings), settings(findings), costs.table(findings), comparisons(findings),
        time_to_accuracy(findings), pareto(findings), sizes.table(findings), quickness.table(findings),
        *scaling(findings),
        *run_tables.all_of(findings),
    ]  # fmt: skip
    made = made if all(s.headline.percent for s in findings.settings) else [_without_percent(table) for table in made]
    return {table.name: without_constants(table) for table in made if table.rows}


def _without_percent(table: Table) -> Table:
    """A table with headline figures that are no shares: its columns do not say that they are per cent."""
    named = {"validation %": "validation", "test %": "test", "test with TTA %": "test with TTA"}
    columns = [named.get(column, column) for column in table.columns]
    numeric = frozenset(named.get(column, column) for column in table.numeric)
    return dataclasses.replace(table, columns=columns, numeric=numeric)


def without_constants(table: Table) -> Table:
    """A table without those `CONSTANT` columns that are equal in all rows; a note states each such value once."""
    if len(table.rows) < 2:
        return table
    alike = {c for i, c in enumerate(table.columns) if c in CONSTANT and len({row[i].text for row in table.rows}) == 1}
    kept = [i for i, column in enumerate(table.columns) if column not in alike]
    facts = [f"{column}: {table.rows[0][i].text}" for i, column in enumerate(table.columns) if column in alike]
    notes = [*table.notes, f"In every row, {'; '.join(facts)}."] if facts else table.notes
    rows = [[row[i] for i in kept] for row in table.rows]
    return dataclasses.replace(table, columns=[table.columns[i] for i in kept], rows=rows, notes=notes)


def spread_cell(of: Spread | None, *, strong: bool = False) -> Cell:
    """A cell with mean ± std in per cent."""
    return number(of.mean if of else None, labels.percent_spread(of), strong=strong)


def seconds_cell(of: Spread | None) -> Cell:
    """A cell with mean ± std of a time."""
    return number(of.mean if of else None, labels.seconds_spread(of))


def results(findings: Findings) -> Table:
    """A table with a row for each network on each data set, beside published figures."""
    machines = machine_letters(findings)
    paper = any(f.paper is not None for f in findings.families)
    augmented = any(s.augmented_test for s in findings.settings)
    several = len(machines) > 1
    seeds = _seeds(findings)
    columns = ["data", "network", "setting", seeds, "validation %", "test %"]
    columns += ["test with TTA %"] * augmented + ["paper %", "vs paper"] * paper
    columns += ["published %"] * any(f.published for f in findings.families)
    columns += ["epochs", "training"] + ["machine"] * several
    rows = []
    for family in findings.families:
        candidates: list[tuple[Setting | None, str]] = [(family.chosen, "")]
        if family.best_on_test:
            candidates.append((family.best_on_test, f" — best on test: {ON_TEST}"))
        for setting, remark in candidates:
            row = [text(family.dataset), text(family.architecture)]
            if setting is None:
                row += [text(family.why)] + [NOTHING] * (len(columns) - 3)
            else:
                row += [text(setting.described + remark), _n(setting)]
                row += [spread_cell(setting.validation), spread_cell(setting.test, strong=not remark)]
                row += [spread_cell(setting.augmented_test)] * augmented
                if paper:
                    row += [number(family.paper, labels.percent(family.paper, 1)), _gap(setting, family.paper)]
                if "published %" in columns:
                    best = max((f["accuracy"] for f in family.published), default=None)
                    row.append(number(best, "–" if best is None else f"{best:.2f}"))
                row += [_epochs(setting), seconds_cell(setting.train_seconds)]
                row += [text(_where(setting, machines))] * several
            rows.append(row)
    what = ", ".join(dict.fromkeys(_headline_words(s) for s in findings.settings))
    notes = [f"Test and validation: {what}, mean ± standard deviation over {seeds}; no ± where there is one."]
    if any(len(s.finished) > len(s.seeds) for s in findings.settings):
        notes.append("A seed that was run more than once is one seed, with the mean of its runs.")
    if any(f.chosen and f.chosen.validation for f in findings.families):
        notes.append("Settings are chosen by their mean on validation; the test split is never used for decisions.")
    notes += dict.fromkeys(f"{f.architecture} on {f.dataset}: {f.why}." for f in findings.families if f.chosen is None)
    if paper:
        notes.append(f"Paper: {findings.published['seed_paper']['note']}")
    if "published %" in columns:
        notes.append("Published: the highest figure for the same network in the table of published figures.")
    notes.append("Training: seconds of the steps alone, without start-up, compilation, evaluation and saving.")
    if several:
        notes += [f"Machine {letter}: {name}." for name, letter in machines.items()]
        notes.append("Times of different machines are not comparable.")
    left = [c for c in columns if c in ("data", "network", "setting", "machine")]
    return Table("results", "Networks and data sets", columns, rows, frozenset(columns) - set(left), notes)


def _headline_words(setting: Setting) -> str:
    label = setting.headline.label
    return f"top-1 {label}" if setting.headline.name == "top1_accuracy" else label


def _seeds(findings: Findings) -> str:
    """The title of the column with the number of samples: seeds, or folds of a cross-validation."""
    return " or ".join(sorted({f"{sample_noun(setting)}s" for setting in findings.settings}, reverse=True))


def _n(setting: Setting) -> Cell:
    seeds, lost, runs = len(setting.seeds), setting.lost_seeds, len(setting.finished)
    told = f"{seeds} of {seeds + lost}" if lost else str(seeds)
    if runs > seeds:
        told += f" (run {runs} times)" if seeds == 1 else f" (in {runs} runs)"
    return number(seeds, told)


def _gap(setting: Setting, paper: float | None) -> Cell:
    """A cell with the difference to a figure published without a spread."""
    if paper is None or setting.test is None:
        return NOTHING
    gap = setting.test.mean - paper
    within = setting.test.std is not None and abs(gap) <= setting.test.std
    return number(gap, f"{100 * gap:+.2f}".replace("-", "−") + (", within the spread" if within else ""))


def _epochs(setting: Setting) -> Cell:
    """A cell with the epochs of the finished runs, such as "30"; "12 to 30" where some stopped early."""
    summaries = [run.summary for run in setting.finished if run.summary and "epochs" in run.summary]
    trained = {told["epochs"]: labels.epochs(told["epochs"], told.get("steps")) for told in summaries}
    if not trained:
        return NOTHING
    least, most = trained[min(trained)], trained[max(trained)]
    return number(max(trained), most if least == most else f"{least} to {most}")


def machine_letters(findings: Findings) -> dict[str, str]:
    """A letter for each machine of a finished run."""
    names = dict.fromkeys(name for s in findings.settings for name in s.machines)
    return {name: chr(ord("A") + i % 26) + ("" if i < 26 else str(i // 26)) for i, name in enumerate(names)}


def _where(setting: Setting, machines: dict[str, str]) -> str:
    return ", ".join(machines[name] for name in setting.machines) or "–"


def published(findings: Findings) -> Table:
    """Figures that others published on these data sets."""
    data = {f.dataset_id for f in findings.families if f.headline.name == ACCURACY.name}
    entries = [f for f in findings.published["figures"] if f["data"] in data]
    entries.sort(key=lambda f: (f["data"], -f["accuracy"]))
    rows = []
    for f in entries:
        link = f"https://arxiv.org/abs/{f['arxiv']}" if "arxiv" in f else f["url"]
        how = f.get("statistic", "") + (f" of {f['n']}" if "n" in f else "")
        std = f" ± {f['std']:.2f}" if "std" in f else ""
        time = f"{f['seconds']} s on {f['machine']}" if "seconds" in f else "–"
        rows.append([
            text(labels.DATA.get(f["data"], f["data"])), text(f["network"]),
            number(f["accuracy"], f"{f['accuracy']:.2f}{std}"), text(how), text(f["augmentation"]),
            number(f.get("seconds"), time),
            text(f"{f['authors']} {f['year']}" + (f", arXiv {f['arxiv']}" if "arxiv" in f else ""), link=link),
            text(f.get("note", "")),
        ])  # fmt: skip
    columns = ["data", "network", "test %", "which runs", "augmentation", "training", "source", "remarks"]
    notes = [
        "Trained from scratch on the set's own training split. Times were measured on the machines of the sources, "
        "and are not comparable with times measured here."
    ]
    return Table("published", "Published figures, for comparison", columns, rows, frozenset({"test %"}), notes)


def settings(findings: Findings) -> Table:
    """A table with a row for each setting."""
    machines = machine_letters(findings)
    chosen = {id(f.chosen) for f in findings.families}
    best = {id(f.best_on_test) for f in findings.families if f.best_on_test}
    keys = list(dict.fromkeys(key for s in findings.settings for key in s.varied))
    keys = keys if len(keys) <= 4 else []
    augmented = any(s.augmented_test for s in findings.settings)
    columns = ["chosen", "data", "network", *([labels.key(k) for k in keys] or ["setting"]), _seeds(findings)]
    columns += ["validation %", "test %", *["test with TTA %"] * augmented]
    converged = {id(s): convergence.seconds(s) for s in findings.settings}
    told = any(converged.values())
    columns += ["training", *["to convergence"] * told, "whole run", "images/s"] + ["machine"] * (len(machines) > 1)
    rows = []
    for family in findings.families:
        for s in family.settings:
            mark = "★" if id(s) in chosen and len(family.settings) > 1 else ""
            mark = " ".join(
                filter(None, [mark, "evolved" if s.evolved else "", "best on test" if id(s) in best else ""])
            )
            row = [text(mark), text(s.dataset), text(s.architecture)]
            if keys:
                row += [_value(s.varied.get(key)) for key in keys]
            else:
                row.append(text(s.described))
            speed = s.images_per_second
            row += [_n(s), spread_cell(s.validation, strong=bool(mark) and mark != "evolved"), spread_cell(s.test)]
            row += [spread_cell(s.augmented_test)] * augmented
            row += [
                seconds_cell(s.train_seconds),
                *[seconds_cell(converged[id(s)])] * told,
                seconds_cell(s.wall_seconds),
            ]
            row.append(number(speed.mean if speed else None, f"{speed.mean:,.0f}" if speed else "–"))
            row += [text(_where(s, machines))] * (len(machines) > 1)
            rows.append(row)
    numeric = frozenset(columns) - {"chosen", "data", "network", "setting", "machine"}
    notes = [
        "★: chosen on validation. Choosing the best number of the test column instead would be selection "
        "on the test split."
    ]
    notes += [convergence.NOTE] * told
    if any(s.protocol == "full" for s in findings.settings):
        notes.append("Settings without a validation figure are of protocol=full: nothing was held out.")
    if findings.best_on_test:
        notes.append(f"“Best on test” is {ON_TEST}.")
    if any(s.evolved for s in findings.settings):
        notes.append(
            "Evolved: continued from the weights and rates of other runs (population-based training); the rates shown "
            "are the initial ones."
        )
    return Table("settings", "All settings", columns, rows, numeric, notes)


def _value(of: Any) -> Cell:
    if of is None:
        return NOTHING
    return number(float(of), labels.value(of)) if isinstance(of, int | float) else text(labels.value(of))


def comparisons(findings: Findings) -> Table:
    """A table that says which differences are larger than chance explains."""
    rows = []
    for row in findings.comparisons:
        outcome = row["outcome"]
        pair = (row["first"], row["second"])
        names = [s.label or s.architecture for s in pair] if row["split"] == "validation" else [s.title for s in pair]
        prefix = f"{pair[0].architecture}: " if row["split"] == "validation" else ""
        rows.append([
            text(row["data"]), text(prefix + names[0]), text(names[1]), text(row["split"]),
            number(outcome.difference, _difference(pair[0], outcome.difference).replace("-", "−")),
            number(outcome.p, "–" if outcome.p is None else f"{outcome.p:.3f}" if outcome.p >= 0.001 else "< 0.001"),
            number(min(outcome.n), f"{outcome.n[0]}, {outcome.n[1]}"), text(outcome.words()),
        ])  # fmt: skip
    columns = ["data", "higher", "lower", "figure on", "difference", "p", "n", "verdict"]
    notes = [
        "Welch's t-test, two-sided. A difference up to the larger of the two standard deviations is called smaller "
        "than the spread over seeds, whatever p is. p is not corrected for the number of rows, nor for choosing the "
        "setting with the best figure."
    ]
    return Table("comparisons", "Is the difference real?", columns, rows, frozenset({"difference", "p", "n"}), notes)


def _difference(setting: Setting, of: float) -> str:
    return f"{100 * of:+.2f}" if setting.headline.percent else f"{of:+.3g}"


def time_to_accuracy(findings: Findings) -> Table:
    """A table of the seconds until validation first reached targets."""
    rows = []
    for row in findings.times_to_accuracy:
        times, s = Spread(tuple(row["times"])) if row["times"] else None, row["setting"]
        rows.append([
            text(row["data"]), text(s.headline.label), number(row["target"], f"{100 * row['target']:g}"),
            text(s.architecture), text(s.described),
            number(times.mean if times else None, labels.seconds(times.mean if times else None)),
            number(times.std if times else None, labels.seconds(times.std) if times and times.std is not None else "–"),
            number(len(row["times"]), f"{len(row['times'])} of {row['of']}"), text("; ".join(s.machines)),
        ])  # fmt: skip
    columns = ["data", "figure", "target %", "network", "setting", "mean time", "std", "reached by", "machine"]
    notes = [
        "Seconds of training until an evaluation on validation first reached the target; the resolution is the "
        "interval between evaluations. Means are over the seeds that reached it."
    ]
    numeric = frozenset({"target %", "mean time", "std", "reached by"})
    return Table("time-to-accuracy", "Time to accuracy", columns, rows, numeric, notes)


def pareto(findings: Findings) -> Table:
    """A table of the settings that no other setting beats in both accuracy and time."""
    rows = []
    for front in findings.fronts:
        for s in front["front"]:
            rows.append([
                text(front["data"]), text(s.title), seconds_cell(s.train_seconds), text(s.headline.label),
                spread_cell(s.validation), _n(s), text(front["machine"]),
            ])  # fmt: skip
    seeds = _seeds(findings)
    columns = ["data", "setting", "training", "figure", "validation %", seeds, "machine"]
    notes = [
        "Settings for which no other setting on the same machine is both faster and more accurate (means over "
        f"{seeds})."
    ]
    numeric = frozenset({"training", "validation %", seeds})
    return Table("pareto", "Pareto front of accuracy and training time", columns, rows, numeric, notes)


def scaling(findings: Findings) -> list[Table]:
    """Speed over devices, one table for each network and measurement."""
    return [_scaling(findings, one, f"scaling-{i + 1}") for i, one in enumerate(findings.scalings)]


def _scaling(findings: Findings, one: Scaling, name: str) -> Table:
    rows = [(curve, row) for curve, members in one.curves.items() for row in members]
    parts = [part for part in ("compute", "communication", "input") if any(f"{part}_seconds" in r for _, r in rows)]
    columns = ["curve", "devices", "images/s", "speed-up", "efficiency %", *(f"{part} s" for part in parts)]
    cells = [
        [
            text(curve),
            number(r["devices"], str(r["devices"])),
            number(r["images_per_second"], f"{r['images_per_second']:,.0f}"),
            number(r["speedup"], f"{r['speedup']:.2f}"),
            number(r["efficiency"], f"{100 * r['efficiency']:.0f}"),
            *(_seconds(r.get(f"{part}_seconds")) for part in parts),
        ]
        for curve, r in rows
    ]
    paper = findings.published["seed_paper"]
    notes = ["Speed-up and efficiency are against the row of the same curve with the fewest devices."]
    if one.shares_cores:
        notes.append(
            "Devices that are parts of one processor share its cores, so they are not expected to give a speed-up."
        )
    notes.append(f"Ashraf et al. report {paper['speedup']} on {paper['speedup_devices']} {paper['speedup_unit']}.")
    return Table(name, f"Speed over devices: {one.name}", columns, cells, frozenset(columns) - {"curve"}, notes)


def _seconds(of: Any) -> Cell:
    return number(of, f"{of:.4f}") if isinstance(of, int | float) else NOTHING
