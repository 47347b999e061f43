"""The table of networks by sets, trained by their configs in the time there is: `python -m benchmarks.cells`.

    python -m benchmarks.cells --out=runs/cells/cells --minutes=10 --cifar10=cifar10.npz --cifar100=cifar100.npz

First a short run of each network measures its steps, evaluation and start. From these follow the epochs: the most, the
same for all cells, with which the whole table fits into --minutes, at most --most_epochs; if there is time for all
cells more than once at that length, also the number of seeds. The choice is kept in `cells-plan.json` and holds for all
later starts of the command. Then every cell is an ordinary run of `jaxcnn.main`, the cheapest first; the same command
resumes a run that was stopped, and goes on. The test split is read once, at the end of each run. The seeds of a network
that does not fill a GPU (--together) are a population of `jaxcnn.sweep`, in the way that it measures as the fastest;
they are counted as if they were trained one by one.

Writes <out>.json and <out>.md after each run; the runs are in `cells-runs` beside them. Arguments after `--` go to
`jaxcnn.main`.
"""

import dataclasses
import json
import pathlib
from importlib import util
from typing import Any

from absl import flags

from benchmarks import cells_plan, child, report
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import json_text
from jaxcnn.study import folder as files
from jaxcnn.train import summary
from jaxcnn.train.interrupts import INTERRUPTED, Interrupted, Interrupts
from jaxcnn.train.workdir import write_json

OUT = command.define_path("out", "cells", "The files to write, without .json and .md.")
MINUTES = flags.DEFINE_float("minutes", 10.0, "Minutes for the whole table, with the short runs.", lower_bound=0)
MODELS = flags.DEFINE_list("models", ["alexnet", "vgg16", "resnet50"], "Networks.")
VARIANT = flags.DEFINE_string("variant", "", "Variant of configs/<model>_<set>.py; empty: the config as it stands.")
DATA = {name: command.define_path(name, "", f"Arrays of {name}, an .npz; empty: not a set of the table.")
        for name in ("cifar10", "cifar100")}  # fmt: skip
PROBE_STEPS = flags.DEFINE_integer("probe_steps", 400, "Steps of a short run that is measured.", lower_bound=2)
MOST_EPOCHS = flags.DEFINE_float("most_epochs", 200.0, "Most epochs; beyond, more seeds are trained.", lower_bound=1)
MOST_SEEDS = flags.DEFINE_integer("most_seeds", 5, "Most seeds of a cell.", lower_bound=1)

TOGETHER = flags.DEFINE_list("together", ["alexnet"], "Networks whose seeds are trained together, as a population.")
SEEDS = flags.DEFINE_integer("together_seeds", 3, "Seeds of these networks; 1: as of the others.", lower_bound=1)

SECTION, PROBE, POPULATION = "cells", "probe", "together"
MARGIN = 0.9  # part of the time that is planned, as steps of a long run may be slower than those of a short one
SHORT = ("--config.run.curves=False", "--config.run.tensorboard=False", "--config.checkpoint.keep_last=1")


def main(arguments: list[str]) -> int:
    """Train what is left of the table and write the files; return the exit code."""
    sets = {name: pathlib.Path(flag.value).absolute() for name, flag in DATA.items() if flag.value}
    if not sets:
        raise UserError("there is no set: give --cifar10=<npz> or --cifar100=<npz>")
    for name, path in sets.items():
        if not path.is_file():
            raise UserError(f"--{name}={path} does not exist")
    out, interrupts = report.check_out(OUT.value), command.interrupts()
    child.ready(interrupts)
    cells = Table(out, sets, arguments, interrupts)
    try:
        cells.train()
    except Interrupted as error:
        cells.write()
        return child.say_stopped(error)
    print(cells_plan.table(cells.write()))
    if cells.failed:
        raise UserError(f"{len(cells.failed)} runs failed; the first: {cells.failed[0]}")
    return 0


class Table:
    """The cells of the table, and the places of their runs.

    Attributes:
      failed: one line for each run that failed in this start.
    """

    def __init__(
        self, out: pathlib.Path, sets: dict[str, pathlib.Path], arguments: list[str], interrupts: Interrupts
    ) -> None:
        self._out, self._sets, self._arguments, self._interrupts = out, sets, arguments, interrupts
        self._folder = out.with_name(f"{out.name}-runs").absolute()
        self._plan_file = out.with_name(f"{out.name}-plan.json")
        self.failed: list[str] = []

    def train(self) -> None:
        """Plan, and train every cell that is not finished.

        Raises:
          Interrupted: this command was asked to stop.
        """
        self._folder.mkdir(exist_ok=True)
        plan = self._plan()
        print(cells_plan.described(plan), flush=True)
        models = sorted(MODELS.value, key=lambda model: plan["costs"][model]["epoch"])
        for seed in range(plan["seeds"]):
            for model in models:
                for name in self._sets:
                    if model not in plan.get("together", []):
                        self._run(model, name, seed, plan["epochs"])
                    elif seed == 0:
                        self._run_together(model, name, max(plan["seeds"], plan["together_seeds"]), plan["epochs"])

    def _run(self, model: str, name: str, seed: int, epochs: float) -> None:
        """Train a cell, unless it is finished; a failure is noted."""
        folder = self._folder / f"{model}_{name}-{seed}"
        if _finished(folder):
            return
        if told := self._start(folder, model, name, *_length(epochs), f"--config.seed={seed}"):
            self.failed.append(told)
            print(told, flush=True)
        elif (figures := summary.read(folder)) is not None:
            print(f"{folder.name}: {summary.last_line(figures)}", flush=True)
        self.write()

    def _run_together(self, model: str, name: str, seeds: int, epochs: float) -> None:
        """Train the seeds of a cell as a population, unless they are finished; a failure is noted."""
        folder = self._folder / f"{model}_{name}-{POPULATION}"
        if len([trial for trial in _trials(folder) if _finished(trial)]) >= seeds:
            return
        own = ("--nomeasure", f"--population={seeds}")
        if told := self._start(folder, model, name, *_length(epochs), *own, seeds=seeds):
            self.failed.append(told)
            print(told, flush=True)
        self.write()

    def _start(self, folder: pathlib.Path, model: str, name: str, *own: str, seeds: int = 0) -> str:
        """Run `jaxcnn.main` for a cell, or `jaxcnn.sweep` for several seeds; return why it failed, empty if not."""
        child.check(self._interrupts)
        config = f"{model}_{name}" + (f":{VARIANT.value}" if VARIANT.value else "")
        source = f"--config.data.source=npz:{self._sets[name]}"
        module = "jaxcnn.sweep" if seeds else "jaxcnn.main"
        recipe = f"sweeps/seeds:{seeds},{config}" if seeds else config
        given = (f"--config={recipe}", source, *SHORT, *self._arguments, *own, f"--workdir={folder}")
        log = folder.with_suffix(".log")
        ended = child.run(child.python(module, *given), log, self._interrupts)
        child.check(self._interrupts)
        if ended.code == INTERRUPTED:
            return f"{folder.name}: it was stopped by something else: {child.last_line(log)}"
        return f"{folder.name}: exit code {ended.code}: {child.last_line(log)}" if ended.code else ""

    def _plan(self) -> dict[str, Any]:
        """The plan of the first start; made now if there is none.

        Raises:
          UserError: a short run failed, or not even one epoch of all cells fits.
        """
        plan = self._kept_plan()
        alike = plan is not None and (plan["models"], plan["sets"]) == (MODELS.value, list(self._sets))
        return plan if plan is not None and alike else self._new_plan()

    def _kept_plan(self) -> dict[str, Any] | None:
        """The plan of an earlier start; None if there is none, or it is damaged."""
        try:
            plan = json_text.parse(self._plan_file.read_text(encoding="utf-8"))
            return plan if plan.keys() >= {"models", "sets", "epochs", "seeds", "costs"} else None
        except (OSError, ValueError, AttributeError):
            return None

    def _new_plan(self) -> dict[str, Any]:
        first = next(iter(self._sets))
        costs, spent = {}, 0.0
        for model in MODELS.value:
            folder = self._folder / f"{PROBE}-{model}"
            length = ("--config.run.epochs=0", f"--config.run.steps={PROBE_STEPS.value}")
            if not _finished(folder) and (told := self._start(folder, model, first, *length)):
                raise UserError(told)
            figures = summary.read(folder)
            assert figures is not None
            costs[model], spent = cells_plan.cost(figures), spent + figures["wall_seconds"]
        seconds = 60 * MINUTES.value - spent
        together = [model for model in MODELS.value if model in TOGETHER.value and SEEDS.value > 1]
        if together and util.find_spec("optuna") is None:
            print("optuna is not installed: seeds are trained one after another, not together", flush=True)
            together = []
        runs = [each for model, each in costs.items() for _ in range(SEEDS.value if model in together else 1)]
        epochs, seeds = cells_plan.choose(runs, len(self._sets), MARGIN * seconds, MOST_EPOCHS.value, MOST_SEEDS.value)
        if not epochs:
            least = len(self._sets) * sum(each.of_run(1) for each in runs) / MARGIN + spent
            raise UserError(
                f"an epoch of all cells takes {least / 60:.1f} minutes, --minutes={MINUTES.value:g} are given"
            )
        plan = {
            "models": MODELS.value,
            "sets": list(self._sets),
            "epochs": epochs,
            "seeds": seeds,
            "together": together,
            "together_seeds": SEEDS.value,
            "minutes": MINUTES.value,
            "probe_seconds": spent,
            "probe_steps": PROBE_STEPS.value,
            "costs": {model: dataclasses.asdict(each) for model, each in costs.items()},
        }
        write_json(self._plan_file, plan)
        return plan

    def write(self) -> dict[str, Any]:
        """Write the record and the section, if anything is measured; return the record."""
        runs: list[dict[str, Any]] = []
        facts: dict[str, Any] = {}
        for folder in sorted(path for path in self._folder.glob("*") if path.is_dir()):
            cell, _, kind = folder.name.rpartition("-")
            model, _, name = cell.rpartition("_")
            for run in _trials(folder) if kind == POPULATION else [folder]:
                if (figures := _finished(run)) is not None:
                    facts = json.loads((run / "environment.json").read_text(encoding="utf-8"))
                    if cell != PROBE:
                        of_run = {"model": model, "set": name, "seed": figures["seed"], "summary": figures}
                        runs.append(of_run | {"together": kind == POPULATION, "environment": facts})
        record = report.provenance("benchmarks.cells", {"jaxcnn": facts})
        record |= {"plan": self._kept_plan(), "variant": VARIANT.value, "runs": runs, "failed": self.failed}
        record |= {"models": MODELS.value, "sets": list(self._sets)}
        if facts:
            report.write(self._out, SECTION, record, cells_plan.markdown(record))
        return record


def _length(epochs: float) -> tuple[str, str]:
    """The flags of the length of a run, and of the epochs between its validations."""
    every = max(1.0, epochs / cells_plan.EVALUATIONS)
    return f"--config.run.epochs={epochs:g}", f"--config.run.eval_every_epochs={every:g}"


def _trials(sweep: pathlib.Path) -> list[pathlib.Path]:
    """The folders of the trials of a sweep, in order."""
    return sorted((sweep / files.TRIALS).glob("*"), key=lambda path: int(path.name))


def _finished(folder: pathlib.Path) -> dict[str, Any] | None:
    """The summary of a run; None if it is not finished, or its summary is damaged and will be made again."""
    try:
        return summary.read(folder)
    except UserError:
        (folder / summary.FILE).unlink()
        return None


if __name__ == "__main__":
    command.run(main, arguments=True)
