"""Groups runs: those that differ only in seed are a setting; settings of one network on one data set are a family."""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

from jaxcnn.reporting import labels
from jaxcnn.reporting.provenance import machine
from jaxcnn.reporting.read import COMPLETE, Run
from jaxcnn.reporting.statistics import Spread, spread
from jaxcnn.tasks.headline import Headline

# Keys that do not affect what is learned: devices, intervals of logs and checkpoints, location of data.
NEUTRAL = (
    "parallel.", "hosts.", "checkpoint.", "data.dir", "data.workers", "data.loader", "data.resident_gib", "data.cache",
    "data.images_below",
    "run.tensorboard", "run.loggers", "run.curves", "run.log_every_steps", "run.steps_per_call", "run.eval_batch_size",
)  # fmt: skip
FAMILY = ("model.name", "model.form", "model.width", "data.source", "data.train_split", "data.test_split")
MOST_KEYS = 4  # most keys in a label
REPEATED = frozenset({"seed", "data.fold"})  # a setting is repeated over these, which gives mean and spread
MAIN_KEYS = ("global_batch_size", "optim.learning_rate")  # of a setting with no other beside it, and its length
FIRST_KEYS = ("global_batch_size", "optim.learning_rate", "optim.name", "schedule.name", "run.epochs")


@dataclasses.dataclass
class Setting:
    """Runs of one config over seeds.

    Attributes:
      varied: the keys that differ between the settings of its family, with their values in this one.
      label: these keys as text; "" if the family has one setting.
      all_keys: `label` with every varied key, if `label` does not have all.
    """

    architecture: str
    dataset: str
    config: dict[str, Any]
    runs: list[Run]
    varied: dict[str, Any] = dataclasses.field(default_factory=dict)
    label: str = ""
    all_keys: str = ""

    @functools.cached_property
    def finished(self) -> list[Run]:
        """The runs that reached their end; all figures use only these."""
        return [run for run in self.runs if run.state == COMPLETE]

    @functools.cached_property
    def seeds(self) -> list[Any]:
        """The different seeds (and folds) of the finished runs; runs with an unknown seed count as one seed."""
        return list(dict.fromkeys(sample(run) for run in self.finished))

    @property
    def lost_seeds(self) -> int:
        """The number of seeds with runs of which none finished."""
        return len({sample(run) for run in self.runs} - set(self.seeds))

    @functools.cached_property
    def repeats_differ(self) -> bool:
        """Whether finished runs of one seed have different figures, which is possible if sums round differently."""
        figures = {(sample(run), validation_figure(run), test_figure(run)) for run in self.finished}
        return len(figures) > len(self.seeds)

    def _spread(self, figure: Callable[[Run], float | None]) -> Spread | None:
        """The spread of a figure of the finished runs over their seeds."""
        found = spread([figure(run) for run in self.finished], [sample(run) for run in self.finished])
        return found and dataclasses.replace(found, headline=self.headline)

    @functools.cached_property
    def headline(self) -> Headline:
        """The figure that decides, which is that of the task."""
        return self.runs[0].headline

    @property
    def described(self) -> str:
        """The label; for the only setting of a family, the values that matter most."""
        length = "run.steps" if self.config.get("run.steps") else "run.epochs"
        told = {key: self.config[key] for key in (*MAIN_KEYS, length) if self.config.get(key) not in (None, 0)}
        return self.label or labels.setting(told) or "as configured"

    @functools.cached_property
    def validation(self) -> Spread | None:
        """The headline figure of the tested weights on the validation split."""
        return self._spread(validation_figure)

    @functools.cached_property
    def test(self) -> Spread | None:
        """The headline figure on the test split."""
        return self._spread(test_figure)

    @functools.cached_property
    def augmented_test(self) -> Spread | None:
        """The headline figure on the test split with test-time augmentation, if the runs have it."""
        return self._spread(lambda run: test_figure(run, "tta_"))

    @functools.cached_property
    def train_seconds(self) -> Spread | None:
        """Seconds of training steps, excluding start-up, compilation, evaluation and saving."""
        return self._spread(lambda run: (run.summary or {}).get("train_seconds"))

    @functools.cached_property
    def wall_seconds(self) -> Spread | None:
        """Seconds from start to end."""
        return self._spread(lambda run: (run.summary or {}).get("wall_seconds"))

    @functools.cached_property
    def images_per_second(self) -> Spread | None:
        """Images per second in training, without start-up and compilation."""
        return self._spread(lambda run: (run.summary or {}).get("images_per_second"))

    @functools.cached_property
    def machines(self) -> list[str]:
        """The machines of the finished runs."""
        return sorted({machine(run) for run in self.finished})

    @property
    def evolved(self) -> int:
        """The number of runs that took over weights and rates of others; the label describes only their start."""
        return sum(run.evolved for run in self.runs)

    @property
    def protocol(self) -> str:
        """The protocol of the runs, "holdout" or "full"."""
        return str(self.config.get("data.protocol", "holdout"))

    @property
    def title(self) -> str:
        """The name of the network and the label."""
        return f"{self.architecture}: {self.label}" if self.label else self.architecture

    def states(self) -> dict[str, int]:
        """The number of runs in each state."""
        found: dict[str, int] = {}
        for run in self.runs:
            found[run.state] = found.get(run.state, 0) + 1
        return found

    def to_json(self) -> dict[str, Any]:
        """The JSON form, with all figures of the setting."""
        figures = ("validation", "test", "augmented_test", "train_seconds", "wall_seconds", "images_per_second")
        spreads = {name: of.to_json() if (of := getattr(self, name)) else None for name in figures}
        return {
            "architecture": self.architecture,
            "data": self.dataset,
            "setting": self.label,
            "varied": self.varied,
            "protocol": self.protocol,
            "seeds": self.seeds,
            "finished_runs": len(self.finished),
            "states": self.states(),
            "evolved": self.evolved,
            "runs": [run.name for run in self.runs],
            "machines": self.machines,
            **spreads,
        }


def validation_figure(run: Run) -> float | None:
    """The headline figure of the tested weights on the validation split; None without such a split."""
    summary = run.summary or {}
    best, last = summary.get("val_best"), summary.get("val_last")
    of_best = run.config.get("run.test_with") == "best"
    return (best or {}).get(run.headline.key) if of_best and best else last


def test_figure(run: Run, prefix: str = "") -> float | None:
    """The headline figure of the test, of the average if there is one; prefix "tta_": with test-time augmentation."""
    summary = run.summary or {}
    name = str(summary.get("headline") or run.headline.name).replace(run.headline.name, f"{prefix}{run.headline.name}")
    return (summary.get("test") or {}).get(name)


def sample(run: Run) -> Any:
    """The sample to which a run belongs: its seed; with cross-validation, its seed and fold."""
    return (run.seed, run.config.get("data.fold")) if run.config.get("data.folds") else run.seed


def sample_noun(setting: Setting) -> str:
    """The noun for a sample of a setting: "seed" or "fold"."""
    return "fold" if setting.config.get("data.folds") else "seed"


def group(runs: list[Run]) -> list[Setting]:
    """The settings of all runs, in the order of their first run, with labels."""
    by_identity: dict[str, Setting] = {}
    alike = labels.datasets(run.config for run in runs)
    for run in runs:
        known = {key: value for key, value in run.config.items() if key not in REPEATED and not key.startswith(NEUTRAL)}
        if not run.config:  # a trial that wrote nothing, and whose trial.json has no config
            known = {"folder": run.name}
        identity = json.dumps(known, sort_keys=True, default=str)
        if identity not in by_identity:
            dataset = labels.dataset(run.config)
            if place := alike.get(str(run.config.get("data.source"))):
                dataset = f"{dataset} ({place})"
            by_identity[identity] = Setting(labels.architecture(run.config), dataset, known, [])
        by_identity[identity].runs.append(run)
    settings = _with_those_that_never_began(list(by_identity.values()))
    families: dict[tuple[str, str], list[Setting]] = {}
    for setting in settings:
        families.setdefault((setting.architecture, setting.dataset), []).append(setting)
    for family in families.values():
        _label(family)
    return settings


def _with_those_that_never_began(settings: list[Setting]) -> list[Setting]:
    """Runs that never wrote a config join the setting that fits their overrides, if exactly one does."""
    whole = [s for s in settings if any(run.whole_config for run in s.runs)]
    left = []
    for setting in settings:
        overrides = (setting.runs[0].trial or {}).get("overrides") if setting not in whole else None
        told = {key: of for key, of in (overrides or {}).items() if key not in REPEATED}
        fits = [w for w in whole if told and all(w.config.get(key) == of for key, of in told.items())]
        if len(fits) == 1:
            fits[0].runs += setting.runs
        else:
            left.append(setting)
    return left


def _label(family: list[Setting]) -> None:
    """Label the settings of a family by their differences."""
    keys = sorted(set().union(*(setting.config for setting in family)) - set(FAMILY) - REPEATED, key=_rank)
    absent = object()
    differing = [
        key for key in keys if len({repr(s.config[key]) for s in family if s.config.get(key, absent) is not absent}) > 1
    ]
    taken: dict[str, int] = {}
    for setting in family:
        setting.varied = {key: setting.config[key] for key in differing if key in setting.config}
        told = {key: of for key, of in setting.varied.items() if not _switched_off(key, of)}
        shown = dict(list(told.items())[:MOST_KEYS])
        more = f" (+{len(told) - len(shown)})" if len(told) > len(shown) else ""
        nothing = "no augmentation" if all(key.startswith("augment.") for key in setting.varied) else "baseline"
        setting.label = labels.setting(shown) + more if told else (nothing if setting.varied else "")
        if setting.evolved:
            setting.label = f"{setting.label or 'as configured'}, at first"
        setting.all_keys = labels.setting(told)
        taken[setting.label] = taken.get(setting.label, 0) + 1
        if taken[setting.label] > 1:
            setting.label = f"{setting.label} #{taken[setting.label]}".strip()


def _switched_off(key: str, of: Any) -> bool:
    if key == "data.sampling":
        return of == "uniform"
    if key.startswith("task."):
        return of in ("none", 0, 0.0, "", [], ())
    return key.startswith("augment.") and key != "augment.normalize" and of in ("none", "auto", 0, 0.0, [], ())


def _rank(key: str) -> tuple[int, str]:
    return (FIRST_KEYS.index(key) if key in FIRST_KEYS else len(FIRST_KEYS), key)
