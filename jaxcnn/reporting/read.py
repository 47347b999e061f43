"""Folders of runs, sweeps and scaling measurements -> what is in them.

Reading is lenient: a run may be half finished, and a file missing or cut off. What could not be read is a note of the
run, told in the report; only a path with nothing of ours in it is an error.
"""

import dataclasses
import json
import pathlib
from typing import Any

from jaxcnn import config as configs
from jaxcnn.config import Config, UserError
from jaxcnn.train.curves import read_records

MARKS = ("config.json", "summary.json", "metrics.jsonl", "trial.json")  # a folder with one of them is a run's
SKIP = ("checkpoints", "tensorboard", "trials", "plots")
DEPTH = 4  # folders below a path that are searched

PBT = "pbt"  # kind of the records of `train.population_based`, which is not imported here, as it needs JAX's data types
COMPLETE, RUNNING, WAITING = "complete", "running", "waiting"
FAILED = ("failed", "diverged", "pruned")


@dataclasses.dataclass
class Run:
    """One training run, as far as it got.

    Attributes:
      name: its folder, below the path that was given.
      config: flat, {"optim.learning_rate": 0.1, …}; where there is no `config.json`, what the summary tells of it.
      whole_config: whether it comes from `config.json`, or from the sweep's.
      test: `test.json`, or else the evaluation of the test split that lies there; with a confusion matrix, maybe.
      records: of `metrics.jsonl`.
      state: complete, running, waiting, failed, diverged, pruned, or "unfinished" where nothing says why.
      notes: what could not be read.
    """

    name: str
    folder: pathlib.Path
    config: dict[str, Any]
    whole_config: bool
    environment: dict[str, Any]
    data: dict[str, Any]
    summary: dict[str, Any] | None
    test: dict[str, Any] | None
    records: list[dict[str, Any]]
    trial: dict[str, Any] | None
    state: str
    sweep: str = ""
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def seed(self) -> int | None:
        """The seed, where it is known."""
        return self.config.get("seed", (self.trial or {}).get("seed"))

    @property
    def evolved(self) -> bool:
        """Whether it took over the weights and rates of another run, in population-based training."""
        return bool((self.trial or {}).get(PBT)) or any(record["kind"] == PBT for record in self.records)

    @property
    def reason(self) -> str:
        """Why it did not finish, as far as anything tells."""
        if self.trial and self.trial.get("reason"):
            return " ".join(str(self.trial["reason"]).split())
        return "" if self.state == COMPLETE else last_step(self)


@dataclasses.dataclass
class Sweep:
    """A sweep's `sweep.json`, and the runs of its trials."""

    name: str
    folder: pathlib.Path
    facts: dict[str, Any]
    runs: list[Run]

    @property
    def missing(self) -> list[dict[str, Any]]:
        """The planned trials that have no folder, as {"overrides", "seed"}."""
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
        """How many trials of a search have not been drawn yet."""
        if self.facts.get("planned") is not None:
            return 0
        return max(0, int(self.facts.get("trials") or 0) - sum(run.trial is not None for run in self.runs))


@dataclasses.dataclass
class Material:
    """All that was found at the paths of a report."""

    paths: list[pathlib.Path]
    runs: list[Run]
    sweeps: list[Sweep]
    scalings: list[dict[str, Any]]


def read(paths: list[pathlib.Path]) -> Material:
    """Everything of ours at and below these paths.

    Raises:
      UserError: a path is no folder, or holds no run, sweep or scaling measurement.
    """
    material = Material(paths, [], [], [])
    seen: set[pathlib.Path] = set()
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path} is no folder; name the workdir of a run or sweep, or a folder of them")
        if not _search(path, path, DEPTH, material, seen):
            raise UserError(
                f"{path} holds no run (config.json, metrics.jsonl, summary.json), sweep (sweep.json) or scaling "
                "measurement (scaling.json); name the workdir of one"
            )
    return material


def _search(folder: pathlib.Path, root: pathlib.Path, depth: int, material: Material, seen: set[pathlib.Path]) -> bool:
    """Add what is in and below a folder; return whether there is anything of ours, be it known already."""
    if folder.resolve() in seen:
        return True
    found = any((folder / name).exists() for name in (*MARKS, "sweep.json", "scaling.json"))
    if found:
        seen.add(folder.resolve())
    if (folder / "scaling.json").exists():
        facts, _ = _json(folder / "scaling.json")
        if facts is not None and isinstance(facts.get("rows"), list):
            material.scalings.append({"name": _name(folder, root), **facts})
    if (folder / "sweep.json").exists():
        material.sweeps.append(_sweep(folder, root))
        material.runs += material.sweeps[-1].runs
        seen.update(run.folder.resolve() for run in material.sweeps[-1].runs)
    elif any((folder / name).exists() for name in MARKS):
        material.runs.append(read_run(folder, root))
    if depth > 0:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.name.startswith(".") and child.name not in SKIP:
                found |= _search(child, root, depth - 1, material, seen)
    return found


def _sweep(folder: pathlib.Path, root: pathlib.Path) -> Sweep:
    facts, note = _json(folder / "sweep.json")
    facts = facts or {}
    name = str(facts.get("name") or folder.resolve().name)
    trials = folder / "trials"
    there = sorted(child for child in trials.iterdir() if child.is_dir()) if trials.is_dir() else []
    there = [child for child in there if not child.name.startswith(".")]
    runs = [read_run(child, root, sweep=name, base=facts.get("base")) for child in there]
    if note:
        facts["notes"] = [note]
    return Sweep(name, folder, facts, runs)


def read_run(folder: pathlib.Path, root: pathlib.Path, sweep: str = "", base: dict[str, Any] | None = None) -> Run:
    """What is in the workdir of a run; a trial that never wrote its config has that of the sweep, and its overrides."""
    notes: list[str] = []

    def part(name: str) -> dict[str, Any] | None:
        value, note = _json(folder / name)
        notes.extend(filter(None, [note]))
        return value

    config, summary, trial = part("config.json"), part("summary.json"), part("trial.json")
    environment, data = part("environment.json") or {}, part("data.json") or {}
    test = part("test.json") or _evaluation(folder) or (summary or {}).get("test")
    records = []
    try:
        records = [r for r in read_records(folder) if isinstance(r, dict) and "kind" in r]
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        notes.append(f"metrics.jsonl cannot be read: {error}")
    flat = configs.flatten(json.loads(json.dumps(configs.to_dict(Config())))) | configs.flatten(config or base or {})
    if config is None:
        flat = (flat if base else _told_by(summary)) | dict((trial or {}).get("overrides") or {})
        if (trial or {}).get("seed") is not None:
            flat["seed"] = (trial or {})["seed"]
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
        records=records,
        trial=trial,
        state=state,
        sweep=sweep,
        notes=notes,
    )


def _evaluation(folder: pathlib.Path) -> dict[str, Any] | None:
    """The last evaluation of the test split that `--mode=eval` left, for runs without `test.json`."""
    names = sorted(folder.glob("eval-test-*.json"), key=lambda path: (len(path.name), path.name))
    for path in [*names[::-1], folder / "eval.json"]:
        value, _ = _json(path)
        if value and "confusion_matrix" in value and value.get("split", "test") == "test":
            return value
    return None


def _told_by(summary: dict[str, Any] | None) -> dict[str, Any]:
    """The part of a config that a summary tells of."""
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
    """How far a run came, in words."""
    if not run.records:
        return "it wrote no record of training" if run.config else "it has not begun"
    last = run.records[-1]
    epoch = f" (epoch {last['epoch']:.2f})" if isinstance(last.get("epoch"), int | float) else ""
    return f"its last record is of step {last.get('step')}{epoch}"


def _json(path: pathlib.Path) -> tuple[dict[str, Any] | None, str]:
    """The JSON object in a file, or None and what is wrong with it; a file that is not there is None and no note."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError) as error:
        return None, f"{path.name} cannot be read: {error}"
    if not isinstance(value, dict):
        return None, f"{path.name} holds no JSON object"
    return value, ""


def _name(folder: pathlib.Path, root: pathlib.Path) -> str:
    inner = folder.relative_to(root).as_posix()
    base = root.resolve().name
    return base if inner == "." else f"{base}/{inner}"


def _identity(overrides: Any, seed: Any) -> str:
    overrides = {key: value for key, value in dict(overrides or {}).items() if key != "seed"}
    return json.dumps([overrides, seed], sort_keys=True)
