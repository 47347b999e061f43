"""A whole report: reads the folders, computes the findings, writes the page, the tables, the plots and the JSON."""

import contextlib
import json
import math
import pathlib
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.reporting import (
    charts,
    contents,
    convergence,
    detectors,
    explained,
    labels,
    more_figures,
    page,
    plots,
    provenance,
    run_charts,
    tables,
)
from jaxcnn.reporting.cautions import cautions
from jaxcnn.reporting.classes import by_class
from jaxcnn.reporting.findings import Findings, find, training_loss_curve, validation_curve
from jaxcnn.reporting.groups import by_group
from jaxcnn.reporting.read import COMPLETE, REPEATED, Material, Run, read
from jaxcnn.reporting.settings import Setting, test_figure, validation_figure


def report(
    paths: list[pathlib.Path],
    out: pathlib.Path,
    *,
    title: str | None = None,
    best_on_test: bool = False,
    explain: str = "",
    command: str,
) -> list[str]:
    """Write the report of these folders into `out`; return lines for the user.

    `explain` is a method of `jaxcnn.explain` that makes maps for the most confused pairs of classes; empty: no maps.

    Raises:
      UserError: nothing to report, or `out` is not writable.
    """
    material = read(paths)
    findings = find(material, best_on_test=best_on_test)
    title, command = labels.printable(title or _title(material)), labels.printable(command)
    made = contents.tables(findings) | more_figures.by_family(findings)
    made |= by_class(findings) | detectors.by_class(findings) | by_group(findings)
    remarks = cautions(findings)
    try:
        folder = out / "plots"
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out={out} cannot be written: {error.strerror}; choose another folder") from error
    for old in [*folder.glob("*.png"), *folder.glob("*.svg")]:
        with contextlib.suppress(IsADirectoryError):
            old.unlink()  # from an earlier report, which may have had other pictures
    pictures = _draw(findings, folder, remarks)
    if explain:
        pairs, maps = explained.sections(findings, explain, folder, remarks, {plot.name for plot, _ in pictures})
        made, pictures = made | pairs, pictures + maps
    html = page.render(title, findings, made, pictures, remarks, command)
    (out / "report.html").write_text(html, encoding="utf-8")
    (out / "tables.md").write_text(tables.markdown(list(made.values()), title), encoding="utf-8")
    (out / "tables.tex").write_text(tables.latex(list(made.values()), title), encoding="utf-8")
    figures = {"title": title, "command": command, **to_json(findings), "cautions": remarks}
    figures["tables"] = {name: table.to_json() for name, table in made.items()}
    text = json.dumps(_finite(figures), indent=1, ensure_ascii=False, allow_nan=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    finished = sum(run.state == COMPLETE for run in material.runs)
    trained = sum(run.state != REPEATED for run in material.runs)
    lines = [f"{finished} of {trained} runs finished, {labels.count(len(findings.settings), 'setting')}"]
    lines += [f"  {remark}" for remark in remarks]
    return [*lines, f"{out}/report.html, tables.md, tables.tex, report.json, plots/ ({_kinds(pictures)})"]


def _kinds(pictures: list[tuple[plots.Plot, str]]) -> str:
    maps = sum(plot.section == explained.SECTION for plot, _ in pictures)
    return f"{len(pictures) - maps} as PNG and SVG" + (f", {maps} as PNG" if maps else "")


def _draw(findings: Findings, folder: pathlib.Path, remarks: list[str]) -> list[tuple[plots.Plot, str]]:
    """Draw all pictures into a folder; return them with their SVG for the page. A failure becomes a remark."""
    made = []
    taken: set[str] = set()
    with plots.style():
        for draw in charts.charts(findings):
            try:
                plot = draw()
                plot.name = labels.untaken(plot.name, taken)
                made.append((plot, plots.for_page(plot, plots.save(plot, folder))))
            except Exception as error:  # a failed picture must not lose the figures and the other pictures
                reason = labels.printable(" ".join(str(error).split()))[:200]
                remarks.append(f"A picture ({draw.func.__name__}) could not be drawn: {type(error).__name__}: {reason}")
        for family in findings.families:
            if (found := run_charts.hardest(family)) is not None:
                plot, content = found
                plot.name = labels.untaken(plot.name, taken)
                made.append((plot, run_charts.as_image(plot, content, folder)))
    return made


def _title(material: Material) -> str:
    names = [sweep.name for sweep in material.sweeps] or [path.resolve().name for path in material.paths]
    return " + ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def to_json(findings: Findings) -> dict[str, Any]:
    """The figures of the report as JSON."""
    index = {id(setting): i for i, setting in enumerate(findings.settings)}

    def at(setting: Any) -> int | None:
        return None if setting is None else index[id(setting)]

    return {
        "settings": [_setting(setting) for setting in findings.settings],
        "families": [
            {
                "architecture": f.architecture,
                "data": f.dataset,
                "chosen": at(f.chosen),
                "why": f.why,
                "best_on_test": at(f.best_on_test),
                "paper": f.paper,
                "published": f.published,
            }
            for f in findings.families
        ],
        "comparisons": [
            {
                "data": row["data"],
                "split": row["split"],
                "first": at(row["first"]),
                "second": at(row["second"]),
                "difference": row["outcome"].difference,
                "t": row["outcome"].t,
                "degrees_of_freedom": row["outcome"].degrees,
                "p": row["outcome"].p,
                "n": row["outcome"].n,
                "verdict": row["outcome"].verdict,
            }
            for row in findings.comparisons
        ],
        "time_to_accuracy": [row | {"setting": at(row["setting"])} for row in findings.times_to_accuracy],
        "pareto": [
            {
                "data": f["data"],
                "machine": f["machine"],
                "figure": f["settings"][0].headline.name,
                "front": [at(s) for s in f["front"]],
            }
            for f in findings.fronts
        ],
        "scaling": [scaling.to_json() for scaling in findings.scalings],
        "missing": findings.missing,
        "runs": [_run(run) for run in findings.material.runs],
        "commands": provenance.commands(findings.material.runs, findings.material.sweeps),
        "environments": provenance.environments(findings.material.runs),
        "published": findings.published,
    }


def _setting(setting: Setting) -> dict[str, Any]:
    converged = convergence.seconds(setting)
    return setting.to_json() | {"seconds_to_convergence": converged.to_json() if converged else None}


def _run(run: Run) -> dict[str, Any]:
    summary = run.summary or {}
    names = ("parameters", "steps", "epochs", "train_seconds", "wall_seconds", "compile_seconds", "images_per_second")
    return {
        "run": run.name,
        "state": run.state,
        "reason": run.reason or None,
        "seed": run.seed,
        "validation": validation_figure(run),
        "test": test_figure(run),
        **{name: summary.get(name) for name in names},
        "seconds_to_convergence": convergence.seconds_of_run(run),
        "machine": provenance.machine(run),
        "changed": {key: value for key, (value, _) in provenance.changed(run.config).items()},
        "validation_curve": [list(point) for point in validation_curve(run)],
        "training_loss_curve": [list(point) for point in training_loss_curve(run)],
        "confusion_matrix": run.confusion.to_json() if run.confusion else None,
        "notes": run.notes,
    }


def _finite(value: Any) -> Any:
    """`value` without infinities and NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {str(key): _finite(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
