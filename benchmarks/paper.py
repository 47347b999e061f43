"""The paper's table beside what was measured here, from the runs kept in results/: `python -m benchmarks.paper`.

    python -m benchmarks.paper --keep=runs/alexnet --note='other work shared the cores'   # what a reader needs of a run
    python -m benchmarks.paper                                                            # the table and its picture

A kept run is `results/<network>_<set>_<cores|gpu>[_seed<n>]`, one folder for each seed: its records, summary, curves,
config, and the machine, packages, commit and command behind it, without paths and host names. Runs that differ only in
the seed are one cell. A run is kept only if it has the network of its config in configs/, held validation out, and ran
on the machine that the column names, and only if its folder holds no other run.
The table replaces that between the marks in results/paper.md and docs/results.md, and a short one that in README.md;
the picture is docs/pictures/paper.png. Nothing is computed anew: the test split was read once, at the end of each run.
"""

import json
import pathlib
import shutil
import statistics
import tomllib
from collections.abc import Sequence
from typing import Any

from absl import flags

import jaxcnn
import jaxcnn.config as configs
from benchmarks import paper_answers
from benchmarks.paper_runs import MODELS, NOT_MEASURED, PLACES, SETS, Kept, kept_runs, read_json
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import whole_files
from jaxcnn.reporting import convergence, labels, plots
from jaxcnn.reporting.findings import PUBLISHED
from jaxcnn.reporting.statistics import Spread, spread
from jaxcnn.text import markdown_table
from jaxcnn.train.workdir import write_json, write_sealed

ROOT = pathlib.Path(__file__).parent.parent
KEEP = command.define_path("keep", "", "Workdir of a finished run to keep in results/.")
NOTE = flags.DEFINE_string("note", "", "With --keep: what a reader of its time has to know, in a few words.")

VARIANTS = {"cores": ("", ":cores"), "gpu": ("", ":strong")}  # of a place's config: their networks may be kept
PAGES = {"results/paper.md": "", "docs/results.md": "../results/"}  # each with where the kept runs are from there
FRONT_PAGE = "README.md"
PICTURE = "docs/pictures/paper.png"
BEGIN, END = "<!-- python -m benchmarks.paper -->", "<!-- end -->"
ANSWERS, ANSWERS_PAGE = "<!-- python -m benchmarks.paper: answers -->", "results/paper.md"
COPIED = ("metrics.jsonl", "curves.png")


def main() -> int:
    """Keep a run, or write the table and its picture; return the exit code."""
    results = ROOT / "results"
    if KEEP.value:
        print(f"kept as {keep(pathlib.Path(KEEP.value), results, NOTE.value)}")
        return 0
    runs = list(kept_runs(results))
    published = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))
    for page, to in PAGES.items():
        write_between(ROOT / page, table(runs, published, to))
        print(f"wrote {page}")
    write_between(ROOT / ANSWERS_PAGE, paper_answers.table(cells(runs), published), ANSWERS)
    write_between(ROOT / FRONT_PAGE, short_table(runs, published))
    print(f"wrote {FRONT_PAGE}")
    draw(runs, published, ROOT / PICTURE)
    print(f"wrote {PICTURE}")
    return 0


def keep(workdir: pathlib.Path, results: pathlib.Path, note: str = "") -> pathlib.Path:
    """Copy what a reader needs of a finished run to its folder in `results`; return this folder.

    Raises:
      UserError: the run is not finished, or is none of the table's, or its folder has another run.
    """
    summary, config, environment = (
        read_json(workdir / f"{name}.json") for name in ("summary", "config", "environment")
    )
    source = str(config["data"]["source"])
    model, data = str(config["model"]["name"]), labels.dataset_id(source)
    if model not in MODELS or data not in SETS:
        raise UserError(f"--keep={workdir}: {model} on {data} is no cell of the table")
    place = "cores" if environment["device"] == "cpu" else "gpu"
    if wrong := _no_cell(config, environment, f"{model}_{data}", place):
        raise UserError(f"--keep={workdir}: this run is not of the table's column {PLACES[place]!r}: {wrong}")
    seed = f"_seed{config['seed']}" if config["seed"] else ""
    folder = results / f"{model}_{data}_{place}{seed}"
    records = "metrics.jsonl"
    if (folder / records).exists() and (folder / records).read_bytes() != (workdir / records).read_bytes():
        raise UserError(f"{folder} has another run of seed {config['seed']}; remove that first, or train another seed")
    folder.mkdir(exist_ok=True)
    for name in COPIED:
        shutil.copyfile(workdir / name, folder / name)
    short = f"{source.partition(':')[0]}:{pathlib.PurePath(source.partition(':')[2]).name}"
    config["data"]["source"] = short
    write_json(folder / "config.json", config)
    plain = {name: value for name, value in summary.items() if name != "crc32"}
    write_sealed(folder / "summary.json", json.loads(json.dumps(plain).replace(source, short)))
    flags_of = [flag.replace(source, short) for flag in environment["command"][1:] if not flag.startswith("--workdir")]
    behind = {name: value for name, value in environment.items() if name not in ("hosts", "earlier", "platform")}
    write_json(folder / "environment.json", behind | {"command": ["main.py", *flags_of], "note": note})
    return folder


def _no_cell(config: dict[str, Any], environment: dict[str, Any], recipe: str, place: str) -> str:
    """Why a run is none of a cell of the table: network, protocol or machine; empty if it is one."""
    of_recipes = [
        configs.to_dict(configs.from_config_dict(jaxcnn.config(recipe + v)))["model"] for v in VARIANTS[place]
    ]
    unlike = [
        [name for name, value in wanted.items() if config["model"].get(name, value) != json.loads(json.dumps(value))]
        for wanted in of_recipes
    ]
    if fewest := min(unlike, key=len):
        return f"config.model.{fewest[0]}={config['model'][fewest[0]]!r} is not that of configs/{recipe}.py"
    if config["data"]["protocol"] != "holdout" or not (config["data"]["val_examples"] or config["data"]["val_split"]):
        return f"config.data.protocol={config['data']['protocol']!r} holds no validation out"
    there = tuple(environment.get(name) for name in ("devices", "processes", *(["cores"] if place == "cores" else [])))
    if there != (1, 1, 2)[: len(there)]:
        return f"it had {there[0]} devices, {there[1]} processes and {environment.get('cores')} cores"
    return ""


def cell(runs: Sequence[Kept], to: str = "") -> str:
    """The text of a cell of the table: accuracy with its spread over seeds, and hours."""
    if not runs:
        return NOT_MEASURED
    accuracy = spread([run.accuracy for run in runs], [run.seed for run in runs])
    assert accuracy is not None
    parts = [f"[{_percent(accuracy)} %]({to}{runs[0].folder}/) in {_hours(runs)}"]
    averaged = spread([run.averaged for run in runs], [run.seed for run in runs])
    if averaged is not None:
        parts.append(f"with test-time augmentation {_percent(averaged)} %")
    return f"{'; '.join(parts)}; {'one seed' if accuracy.n == 1 else f'{accuracy.n} seeds'}"


def _hours(runs: Sequence[Kept]) -> str:
    return f"{statistics.fmean(run.hours for run in runs):.1f} h"


def _percent(of: Spread) -> str:
    return f"{100 * of.mean:.2f}" + (f" ± {100 * of.std:.2f}" if of.std is not None else "")


def cells(runs: Sequence[Kept]) -> dict[tuple[str, str, str], list[Kept]]:
    """The runs of each cell: by set, network and place."""
    found: dict[tuple[str, str, str], list[Kept]] = {(d, m, p): [] for d in SETS for m in MODELS for p in PLACES}
    for run in runs:
        found[run.data, run.model, run.place].append(run)
    return found


def table(runs: Sequence[Kept], published: dict[str, Any], to: str = "") -> str:
    """The table as Markdown, with the facts of each run below it; `to` is the path to results/."""
    found, paper = cells(runs), _of_paper(published)
    rows = []
    for data, told in SETS.items():
        for model, name in MODELS.items():
            others = [f for f in published["figures"] if (f["data"], f["model"]) == (data, model)]
            best = max(others, key=lambda f: f["accuracy"])
            link = f"[{best['accuracy']} %]({best.get('url') or 'https://arxiv.org/abs/' + best['arxiv']})"
            rows.append(
                [
                    f"{told}, {name}",
                    paper[data, model],
                    link,
                    *(cell(found[data, model, place], to) for place in PLACES),
                ]
            )
    header = ("", "the paper, nodes of four P100", "best published with code", *PLACES.values())
    lines = markdown_table(header, rows)
    lines += [
        "",
        "Test accuracy, read once at the end of each run; hours are wall time, start-up and evaluation included. "
        f"Converged: the first evaluation on validation within {100 * convergence.WITHIN:g} points of the last.",
    ]
    if missing := sum(not of for of in found.values()):
        lines.append(f"{missing} of {len(found)} cells are not measured.")
    for (data, model, place), of in found.items():
        name = f"{SETS[data]}, {MODELS[model]}, {PLACES[place]}"
        for run in of:
            converged = "" if run.converged is None else f", converged after {run.converged:.1f} h of training"
            lines.append(f"- {name}, seed {run.seed}, {run.epochs:g} epochs{converged}: {run.behind}.")
    return "\n".join(lines)


def _of_paper(published: dict[str, Any]) -> dict[tuple[str, str], str]:
    """What the paper says of each set and network."""
    figures = published["seed_paper"]["figures"]
    paper = {(f["data"], f["model"]): f"{f['accuracy']} % in {f['hours']:g} h" for f in figures}
    for figure in published["seed_paper"]["below"]:
        paper[figure["data"], figure["model"]] = f"below {figure['accuracy']} % in {figure['hours']:g} h"
    return paper


def short_table(runs: Sequence[Kept], published: dict[str, Any]) -> str:
    """The table with a column for each network, as Markdown: the paper's rows, and ours of what has been measured."""
    found, paper = cells(runs), _of_paper(published)
    rows = []
    for data, told in SETS.items():
        rows.append([f"{told}, the paper: four P100", *(paper[data, model] for model in MODELS)])
        for place, where in PLACES.items():
            row = [found[data, model, place] for model in MODELS]
            if any(row):
                rows.append([f"{told}, jaxcnn: {where}", *map(_short_cell, row)])
    return "\n".join(markdown_table(("test accuracy", *MODELS.values()), rows))


def _short_cell(runs: Sequence[Kept]) -> str:
    accuracy = spread([run.accuracy for run in runs], [run.seed for run in runs])
    return NOT_MEASURED if accuracy is None else f"{_percent(accuracy)} % in {_hours(runs)}"


def write_between(page: pathlib.Path, text: str, begins: str = BEGIN) -> None:
    """Replace what is between the marks of a page.

    Raises:
      UserError: the page has no such marks.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(begins)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"{page} lacks {begins} and {END}, between which the table goes")
    whole_files.write(page, f"{before}{begins}\n\n{text}\n\n{END}{after}")


ROOM = 3.0  # hours from which a point of the paper has its name on the left, so that ours of longer runs have theirs


def draw(runs: Sequence[Kept], published: dict[str, Any], path: pathlib.Path) -> None:
    """Accuracy against hours: the paper's points hollow, ours filled, an axis for each set."""
    from matplotlib.figure import Figure

    found, paper = cells(runs), published["seed_paper"]["figures"]
    colours = dict(zip(MODELS, plots.SERIES, strict=False))
    with plots.style():
        figure = Figure(figsize=(2 * plots.WIDTH * 0.85, 3.1), layout="constrained")
        for axes, (data, told) in zip(figure.subplots(1, 2), SETS.items(), strict=True):
            for of in (f for f in paper if f["data"] == data):
                point, model = (of["hours"], of["accuracy"]), of["model"]
                axes.plot(*point, "o", markerfacecolor="none", color=colours[model], markersize=7)
                offset, side = ((6, -10), "left") if point[0] < ROOM else ((-6, 3), "right")
                axes.annotate(
                    f"{MODELS[model]}, paper", point, offset, textcoords="offset points", color=plots.MUTED, ha=side,
                    fontsize=plots.FONT - 1.5,
                )  # fmt: skip
            for (_, model, place), mine in ((key, of) for key, of in found.items() if key[0] == data and of):
                hours = statistics.fmean(run.hours for run in mine)
                accuracy = 100 * statistics.fmean(run.accuracy for run in mine)
                axes.plot(hours, accuracy, "o" if place == "cores" else "s", color=colours[model], markersize=7)
                axes.annotate(
                    f"{MODELS[model]}, {PLACES[place]}", (hours, accuracy), (6, 4), textcoords="offset points",
                    fontsize=plots.FONT - 1.5,
                )  # fmt: skip
            axes.set(title=told, xlabel="hours", ylabel="test accuracy (%)", xlim=(0, 10))
            axes.margins(y=0.25)
        figure.savefig(path, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    command.run(main)
