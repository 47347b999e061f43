"""Reads folders of runs, sweeps and scaling measurements.

Reading is lenient: a run may be half finished, and a file missing or truncated. Unreadable parts become notes of the
run, which the report shows; only a path without any of our folders is an error.
"""

import contextlib
import dataclasses
import json
import pathlib
import stat
from typing import Any

import jaxcnn.config as configs
from jaxcnn.config import UserError
from jaxcnn.machine import json_text
from jaxcnn.reporting import labels, sound
from jaxcnn.tasks.confusion import Confusion
from jaxcnn.tasks.headline import Headline
from jaxcnn.train import curves
from jaxcnn.train.checksum import is_whole

MARKS = ("config.json", "summary.json", "metrics.jsonl", "trial.json")  # a folder with one of these is a run
SKIP = ("checkpoints", "tensorboard", "trials", "plots")
DEPTH = 4  # folders below a path that are searched

PBT = "pbt"  # kind of the records of `train.population_based`, which is not imported here, as it needs JAX's data types

COMPLETE, RUNNING, WAITING = "complete", "running", "waiting"
FAILED = ("failed", "diverged", "pruned")
REPEATED = "repeated"  # a trial of a search that repeats an earlier one, and was not trained


@dataclasses.dataclass
class Run:
    """A training run, as far as it got.

    Attributes:
      name: name of its folder, relative to the given path.
      config: flat, {"optim.learning_rate": 0.1, …}; without a `config.json`, the part known from the summary.
      whole_config: whether it comes from the `config.json` of the run or the config of its sweep.
      test: `test.json`, or else the test evaluation in the folder.
      confusion, class_names: taken from `test`; None and empty without a confusion matrix.
      records: records of `metrics.jsonl`.
      state: complete, running, waiting, failed, diverged, pruned, repeated, or "unfinished" for an unknown reason.
      notes: notes on unreadable parts.
    """

    name: str
    folder: pathlib.Path
    config: dict[str, Any]
    whole_config: bool
    environment: dict[str, Any]
    data: dict[str, Any]
    summary: dict[str, Any] | None
    test: dict[str, Any] | None
    confusion: Confusion | None
    class_names: tuple[str, ...]
    records: list[dict[str, Any]]
    trial: dict[str, Any] | None
    state: str
    sweep: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def seed(self) -> int | None:
        """The seed, if known."""
        return self.config.get("seed", (self.trial or {}).get("seed"))

    @property
    def headline(self) -> Headline:
        """The figure that decides; by the summary, else by the task, else accuracy."""
        return sound.headline(self.summary, self.config)

    @property
    def evolved(self) -> bool:
        """Whether the run took over weights and rates of another run in population-based training."""
        return bool((self.trial or {}).get(PBT)) or any(record["kind"] == PBT for record in self.records)

    @property
    def reason(self) -> str:
        """The reason why the run did not finish, if known."""
        if self.state == REPEATED and self.trial:
            return f"as trial {self.trial['as']:04d}"
        if self.trial and self.trial.get("reason"):
            return " ".join(str(self.trial["reason"]).split())
        return "" if self.state == COMPLETE else last_step(self)


@dataclasses.dataclass
class Sweep:
    """A sweep's `sweep.json`, the runs of its trials, and notes on unreadable parts."""

    name: str
    folder: pathlib.Path
    facts: dict[str, Any]
    runs: list[Run]
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def missing(self) -> list[dict[str, Any]]:
        """The planned trials without a folder, as {"overrides", "seed"}."""
        left = [_identity((run.trial or {}).get("overrides"), run.seed) for run in self.runs]
        missing = []
        for planned in self.facts.get("planned") or []:
            identity = _identity(planned.get("overrides"), planned.get("seed"))
            if identity in left:
                left.remove(identity)
            else:
                missing.append(planned)
        return missing

    @property
    def undrawn(self) -> int:
        """The number of trials that a search has not drawn yet."""
        if self.facts.get("planned") is not None:
            return 0
        return max(0, int(self.facts.get("trials") or 0) - sum(run.trial is not None for run in self.runs))


@dataclasses.dataclass
class Material:
    """Everything found at the paths of a report; `notes` concern unreadable parts outside of runs."""

    paths: list[pathlib.Path]
    runs: list[Run]
    sweeps: list[Sweep]
    scalings: list[dict[str, Any]]
    notes: list[str] = dataclasses.field(default_factory=list)


def read(paths: list[pathlib.Path]) -> Material:
    """Read all runs, sweeps and scaling measurements at and below these paths.

    Raises:
      UserError: a path is not a folder, or has no run, sweep or scaling measurement.
    """
    material, seen = Material(paths, [], [], []), set[pathlib.Path]()
    for path in paths:
        if not _is_dir(path):
            raise UserError(f"{path} is not a folder; give the workdir of a run or sweep, or a folder of such workdirs")
        if not _search(path, path, DEPTH, material, seen):
            if material.notes:
                raise UserError(f"there is nothing to report: {material.notes[-1]}")
            raise UserError(
                f"{path} contains no run (config.json, metrics.jsonl, summary.json), sweep (sweep.json) or scaling "
                "measurement (scaling.json); give the workdir of one"
            )
    return material


def _search(folder: pathlib.Path, root: pathlib.Path, depth: int, material: Material, seen: set[pathlib.Path]) -> bool:
    """Add the contents of a folder and those below it; return whether any are found, including known ones."""
    if folder.resolve() in seen:
        return True
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        material.notes.append(f"{labels.printable(str(folder))} cannot be read: {error.strerror}")
        return False
    names = {child.name for child in children}
    found = not names.isdisjoint((*MARKS, "sweep.json", "scaling.json"))
    if found:
        seen.add(folder.resolve())
    if "scaling.json" in names:
        facts, note = json_object(folder / "scaling.json")
        if facts is not None and isinstance(facts.get("rows"), list):
            name = facts["name"] if isinstance(facts.get("name"), str) else _name(folder, root)
            material.scalings.append(facts | {"name": name, "rows": sound.scaling_rows(facts["rows"])})
        else:
            material.notes.append(f"{_name(folder, root)}: {note or 'scaling.json has no rows'}")
    if "sweep.json" in names:
        material.sweeps.append(_sweep(folder, root))
        material.runs += material.sweeps[-1].runs
        seen.update(run.folder.resolve() for run in material.sweeps[-1].runs)
    elif not names.isdisjoint(MARKS):
        material.runs.append(read_run(folder, root))
    if depth > 0:
        for child in children:
            if _is_dir(child) and not child.name.startswith(".") and child.name not in SKIP:
                found |= _search(child, root, depth - 1, material, seen)
    return found


def _is_dir(path: pathlib.Path) -> bool:
    with contextlib.suppress(OSError):  # such as a link into an inaccessible folder
        return path.is_dir()
    return False


def _sweep(folder: pathlib.Path, root: pathlib.Path) -> Sweep:
    facts, note = json_object(folder / "sweep.json")
    notes = [note] if note else []
    facts = sound.sweep(facts or {}, notes)
    name = str(facts.get("name") or labels.printable(folder.resolve().name))
    there: list[pathlib.Path] = []
    try:
        there = sorted(child for child in (folder / "trials").iterdir() if _is_dir(child))
    except FileNotFoundError:
        pass
    except OSError as error:
        notes.append(f"trials cannot be read: {error.strerror}")
    there = [child for child in there if not child.name.startswith(".")]
    runs = [read_run(child, root, sweep=name, base=facts.get("base")) for child in there]
    return Sweep(name, folder, facts, runs, notes)


def read_run(folder: pathlib.Path, root: pathlib.Path, sweep: str = "", base: dict[str, Any] | None = None) -> Run:
    """The run in a workdir; a trial that never wrote its config gets that of the sweep with its overrides."""
    notes: list[str] = []

    def part(name: str) -> dict[str, Any] | None:
        value, note = json_object(folder / name)
        notes.extend(filter(None, [note]))
        return value

    config, trial = part("config.json"), sound.trial(part("trial.json"), notes)
    summary = sound.summary(part("summary.json"), notes)
    environment, data = sound.environment(part("environment.json")), part("data.json") or {}
    test = part("test.json") or _evaluation(folder) or (summary or {}).get("test")
    confusion, class_names = sound.confusion(test, data, notes)
    records = []
    try:
        if _is_readable(folder / "metrics.jsonl"):
            records = sound.records(labels.printables(curves.read_records(folder)))
            notes.extend(curves.damage(folder))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError, UserError) as error:
        notes.append(f"metrics.jsonl cannot be read: {_reason(error)}")
    flat = sound.default_config() | configs.flatten(config or base or {})
    if config is None:
        flat = (flat if base else _told_by(summary)) | dict((trial or {}).get("overrides") or {})
        if (trial or {}).get("seed") is not None:
            flat["seed"] = (trial or {})["seed"]
    flat = sound.config(flat, notes)
    if trial and type(trial.get("as")) is int and trial.get("state") in (COMPLETE, *FAILED):
        trial = trial | {"state": REPEATED}
    state = COMPLETE if summary else str((trial or {}).get("state") or "unfinished")
    if state == COMPLETE and not summary:
        state = "unfinished"
        notes.append("trial.json says complete, but there is no summary.json")
    return Run(
        name=_name(folder, root),
        folder=folder,
        config=flat,
        whole_config=config is not None or bool(base),
        environment=environment,
        data=data,
        summary=summary,
        test=test,
        confusion=confusion,
        class_names=class_names,
        records=records,
        trial=trial,
        state=state,
        sweep=sweep,
        notes=notes,
    )


def _evaluation(folder: pathlib.Path) -> dict[str, Any] | None:
    """The last test evaluation written by `--mode=eval`, for runs without `test.json`."""
    names = sorted(folder.glob("eval-test-*.json"), key=lambda path: (len(path.name), path.name))
    for path in [*names[::-1], folder / "eval.json"]:
        value, _ = json_object(path)
        if value and "confusion_matrix" in value and value.get("split", "test") == "test":
            return value
    return None


def _told_by(summary: dict[str, Any] | None) -> dict[str, Any]:
    """The part of a config that is in a summary."""
    if not summary:
        return {}
    keys = {
        "model.name": "model",
        "seed": "seed",
        "global_batch_size": "global_batch_size",
        "data.protocol": "protocol",
        "model.dtype": "dtype",
        "run.tta": "tta",
    }
    told = {key: summary[name] for key, name in keys.items() if name in summary}
    described = str(summary.get("data", "")).split(" ")[0].split(":")  # "tfds:cifar10:3.0.2 train (minus …)"
    return told | {"data.source": ":".join(described[:2]), "run.epochs": round(summary.get("epochs", 0.0))}


def last_step(run: Run) -> str:
    """The progress of a run, in words."""
    if not run.records:
        return "it wrote no record of training" if run.config else "it has not started"
    last = run.records[-1]
    step, epoch = last.get("step"), last.get("epoch")
    told = f" (epoch {float(labels.epochs(epoch, step)):.2f})" if isinstance(epoch, int | float) else ""
    return f"its last record is from step {step}{told}"


def json_object(path: pathlib.Path) -> tuple[dict[str, Any] | None, str]:
    """The JSON object in a file, or None and the problem; a missing file gives None without a note."""
    try:
        value = json_text.parse(path.read_text(encoding="utf-8")) if _is_readable(path) else None
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError) as error:
        return None, f"{path.name} cannot be read: {_reason(error)}"
    if not isinstance(value, dict):
        return None, f"{path.name} does not contain a JSON object"
    if not is_whole(value):
        return None, f"{path.name} has changed since it was written (its checksum differs)"
    return labels.printables(value), ""


def _is_readable(path: pathlib.Path) -> bool:
    """Whether a file can be read to its end, unlike a pipe. Raises OSError if it does not exist."""
    return stat.S_ISREG(path.stat().st_mode)


def _reason(error: Exception) -> str:
    return labels.printable(getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__)


def _name(folder: pathlib.Path, root: pathlib.Path) -> str:
    inner = folder.relative_to(root).as_posix()
    base = root.resolve().name
    return labels.printable(base if inner == "." else f"{base}/{inner}")


def _identity(overrides: Any, seed: Any) -> str:
    overrides = {key: value for key, value in dict(overrides or {}).items() if key != "seed"}
    return json.dumps([overrides, seed], sort_keys=True)
