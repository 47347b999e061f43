"""Findings from the runs: choices made on validation, comparisons, effects of each key, times, and missing results."""

import dataclasses
import pathlib
import tomllib
from typing import Any

from jaxcnn.reporting import labels
from jaxcnn.reporting.read import COMPLETE, FAILED, REPEATED, Material, Run
from jaxcnn.reporting.scaling import Scaling, scalings
from jaxcnn.reporting.settings import Setting, group, sample
from jaxcnn.reporting.statistics import ACCURACY, Comparison, Spread, compare, pareto_front, spread
from jaxcnn.tasks.headline import Headline

PUBLISHED = pathlib.Path(__file__).parent / "published.toml"
TARGETS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.93, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
TARGETS_SHOWN = 3


@dataclasses.dataclass
class Family:
    """The settings of one network on one data set that one figure judges, the best on validation first.

    Attributes:
      chosen: the setting with the best mean headline figure on validation; None if there are several settings and no
        validation split.
      why: a text on how it was chosen.
      runner_up: the second on validation, and its comparison with the chosen one there; None if one of them continued
        from the weights of other runs.
      best_on_test: the setting with the highest mean test accuracy, if requested.
      paper: Ashraf et al.'s accuracy, as a fraction.
      published: entries of published.toml of this network on this data.
    """

    architecture: str
    dataset: str
    model: str
    dataset_id: str
    settings: list[Setting]
    chosen: Setting | None
    why: str
    runner_up: tuple[Setting, Comparison] | None
    best_on_test: Setting | None
    paper: float | None
    published: list[dict[str, Any]]

    @property
    def headline(self) -> Headline:
        """The figure that decides between its settings."""
        return self.settings[0].headline

    def axis(self, split: str) -> str:
        """The label of an axis of that figure on a split, with its unit."""
        return f"{split} {self.headline.label}{' (%)' if self.headline.percent else ''}"


@dataclasses.dataclass
class Effect:
    """Settings that differ in one key only, as lines over its values.

    Attributes:
      lines: (text on the other keys, settings in ascending order of the value) of each line.
    """

    key: str
    family: Family
    lines: list[tuple[str, list[Setting]]]


@dataclasses.dataclass
class Findings:
    """The contents of a report."""

    material: Material
    published: dict[str, Any]
    settings: list[Setting]
    families: list[Family]
    comparisons: list[dict[str, Any]]
    effects: list[Effect]
    fronts: list[dict[str, Any]]
    times_to_accuracy: list[dict[str, Any]]
    scalings: list[Scaling]
    troubles: list[Run]
    unfinished: list[Run]
    missing: list[dict[str, Any]]
    best_on_test: bool


def find(material: Material, *, best_on_test: bool = False) -> Findings:
    """Compute all findings. Test figures decide nothing, except for the extra row of `best_on_test`."""
    published = tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))
    settings = group(material.runs)
    families = _families(settings, published, best_on_test)
    missing = [{"sweep": sweep.name, **planned} for sweep in material.sweeps for planned in sweep.missing]
    return Findings(
        material=material,
        published=published,
        settings=settings,
        families=families,
        comparisons=_comparisons(families),
        effects=[effect for family in families for effect in effects(family)],
        fronts=_fronts(families),
        times_to_accuracy=times_to_accuracy(families),
        scalings=scalings(material, settings),
        troubles=[run for run in material.runs if run.state in FAILED],
        unfinished=[run for run in material.runs if run.state not in (COMPLETE, REPEATED, *FAILED)],
        missing=missing,
        best_on_test=best_on_test,
    )


def _families(settings: list[Setting], published: dict[str, Any], best_on_test: bool) -> list[Family]:
    judges: dict[tuple[str, str], set[str]] = {}
    for setting in settings:
        judges.setdefault((setting.dataset, setting.architecture), set()).add(setting.headline.name)
    by_name: dict[tuple[str, str], list[Setting]] = {}
    for setting in settings:  # figures of two kinds have no order
        several = len(judges[setting.dataset, setting.architecture]) > 1
        dataset = f"{setting.dataset}, judged by {setting.headline.label}" if several else setting.dataset
        by_name.setdefault((dataset, setting.architecture), []).append(setting)
    families = []
    for (dataset, architecture), members in sorted(by_name.items(), key=_order):
        members = sorted(members, key=lambda s: -_score(s, s.validation))
        model = str(members[0].config.get("model.name", ""))
        data = labels.dataset_id(str(members[0].config.get("data.source") or ""))
        chosen, why = _choose(members)
        second = [s for s in members if s.validation and s is not chosen]
        runner_up = None
        evolved = chosen is not None and (chosen.evolved or any(s.evolved for s in second[:1]))
        if chosen and chosen.validation and second and second[0].validation and not evolved:
            runner_up = second[0], compare(chosen.validation, second[0].validation)
        tested = [s for s in members if s.test]
        whole = members[0].config.get("data.train_split", "train") == "train"
        known = (model, data) if members[0].headline.name == ACCURACY.name else ()  # others published accuracies
        same = [f for f in published["seed_paper"]["figures"] if (f["model"], f["data"]) == known and whole]
        families.append(
            Family(
                architecture=architecture,
                dataset=dataset,
                model=model,
                dataset_id=data,
                settings=members,
                chosen=chosen,
                why=why,
                runner_up=runner_up,
                best_on_test=max(tested, key=_test_mean) if best_on_test and tested else None,
                paper=same[0]["accuracy"] / 100 if same else None,
                published=[f for f in published["figures"] if (f["model"], f["data"]) == known],
            )
        )
    return families


def _test_mean(setting: Setting) -> float:
    return _score(setting, setting.test)


def _score(setting: Setting, of: Spread | None) -> float:
    """A number that is larger for better means; the lowest without a mean."""
    return setting.headline.score(of.mean) if of else float("-inf")


def _order(named: tuple[tuple[str, str], list[Setting]]) -> tuple[Any, ...]:
    """Data sets by name, networks as in `labels.ARCHITECTURES`."""
    (dataset, architecture), members = named
    known = [*labels.ARCHITECTURES, members[0].config.get("model.name", "")]
    return dataset, known.index(members[0].config.get("model.name", "")), architecture


def _choose(members: list[Setting]) -> tuple[Setting | None, str]:
    """The setting that represents a family, and the reason."""
    finished = [s for s in members if s.finished]
    validated = [s for s in finished if s.validation]
    if not finished:
        return None, "no run has finished"
    if len(finished) == 1:
        held_out = "" if validated else "; nothing was held out for validation (protocol=full)"
        return finished[0], f"the only setting with a finished run{held_out}"
    if not validated:
        return None, "nothing was held out for validation (protocol=full), so nothing is chosen"
    others = len(finished) - len(validated)
    left_out = f"; {labels.count(others, 'setting')} without validation could not be chosen" if others else ""
    what = f"{_best(validated[0])} mean validation {validated[0].headline.label}"
    return validated[0], f"{what} of {labels.count(len(validated), 'setting')}{left_out}"


def _best(setting: Setting) -> str:
    return "highest" if setting.headline.better == "higher" else "lowest"


def _comparisons(families: list[Family]) -> list[dict[str, Any]]:
    """Comparisons: the chosen setting with the runner-up (validation), and networks with each other (test)."""
    rows = []
    for family in families:
        if family.chosen and family.runner_up:
            second, outcome = family.runner_up
            rows.append(_row(family.dataset, "validation", family.chosen, second, outcome))
    chosen = [f for f in families if f.chosen and f.chosen.test and not f.chosen.evolved]
    for i, first in enumerate(chosen):
        for other in chosen[i + 1 :]:
            if first.dataset == other.dataset:
                one, two = first.chosen, other.chosen
                assert one and two and one.test and two.test
                if _score(one, one.test) < _score(two, two.test):
                    one, two = two, one
                rows.append(_row(first.dataset, "test", one, two, compare(one.test, two.test)))  # type: ignore[arg-type]
    return rows


def _row(dataset: str, split: str, one: Setting, two: Setting, outcome: Comparison) -> dict[str, Any]:
    return {"data": dataset, "split": split, "first": one, "second": two, "outcome": outcome}


def effects(family: Family) -> list[Effect]:
    """The effect of each numeric key: the settings that differ only in this key."""
    found = []
    measured = [s for s in family.settings if (s.validation or s.test) and not s.evolved]
    keys = {key for s in measured for key, of in s.varied.items() if _is_number(of)}
    for key in sorted(keys, key=lambda k: (k != "global_batch_size", k != "optim.learning_rate", k)):
        lines: dict[str, list[Setting]] = {}
        for setting in measured:
            if _is_number(setting.varied.get(key)):
                others = {k: of for k, of in setting.varied.items() if k != key}
                lines.setdefault(labels.setting(others), []).append(setting)
        whole = [(name, sorted(line, key=lambda s: s.varied[key])) for name, line in lines.items() if len(line) > 1]
        if whole:
            whole.sort(key=lambda line: -max(_score(s, s.validation) for s in line[1]))
            found.append(Effect(key, family, whole))
    return found


def scattered(family: Family) -> list[tuple[str, list[Setting]]]:
    """Numeric keys drawn at random (so no two settings differ in only one key), each with its measured settings."""
    measured = [s for s in family.settings if s.validation and not s.evolved]
    lines = {effect.key for effect in effects(family)}
    found = []
    for key in sorted({key for s in measured for key, of in s.varied.items() if _is_number(of)} - lines):
        members = [s for s in measured if _is_number(s.varied.get(key))]
        if len({s.varied[key] for s in members}) > 2:
            found.append((key, members))
    return found


def _is_number(of: Any) -> bool:
    return isinstance(of, int | float) and not isinstance(of, bool)


def _fronts(families: list[Family]) -> list[dict[str, Any]]:
    """The settings of each data set, machine and headline figure, and the front of training time and validation."""
    places: dict[tuple[str, str, Headline], list[Setting]] = {}
    for family in families:
        for setting in family.settings:
            if setting.validation and setting.train_seconds and len(setting.machines) == 1:
                places.setdefault((setting.dataset, setting.machines[0], setting.headline), []).append(setting)
    fronts = []
    for (dataset, where, _), settings in places.items():
        if len(settings) > 1:
            points = [(s.train_seconds.mean, _score(s, s.validation)) for s in settings]  # type: ignore[union-attr]
            fronts.append(
                {
                    "data": dataset,
                    "machine": where,
                    "settings": settings,
                    "front": [settings[i] for i in pareto_front(points)],
                }
            )
    return fronts


def times_to_accuracy(families: list[Family]) -> list[dict[str, Any]]:
    """Training seconds until validation first reached a target, for the chosen setting of each family.

    The targets of a data set and figure are the three highest round values that any of its chosen runs reached.
    """
    rows = []
    all_chosen = [f.chosen for f in families if f.chosen and f.chosen.validation and f.chosen.headline.percent]
    for dataset, headline in dict.fromkeys((s.dataset, s.headline) for s in all_chosen):
        chosen = [s for s in all_chosen if (s.dataset, s.headline) == (dataset, headline)]
        runs = [run for setting in chosen for run in setting.finished]
        best = max((a for run in runs for _, _, a in validation_curve(run)), default=0.0)
        for target in [t for t in TARGETS if t <= best][-TARGETS_SHOWN:]:
            for setting in chosen:
                seeds = [sample(run) for run in setting.finished]
                reached = spread([_first(run, target) for run in setting.finished], seeds)
                row = {"data": dataset, "target": target, "setting": setting}
                rows.append(row | {"of": len(setting.seeds), "times": list(reached.values) if reached else []})
    return rows


def validation_curve(run: Run) -> list[tuple[float, float, float]]:
    """(epoch, training seconds, headline figure) of each evaluation of a run; of the moving average if it has one."""
    name, averaged = run.headline.name, f"ema_{run.headline.name}"
    return [
        (float(r.get("epoch", 0.0)), float(r["train_seconds"]), float(r[averaged if averaged in r else name]))
        for r in run.records
        if r["kind"] == "val" and "train_seconds" in r and (name in r or averaged in r)
    ]


def training_loss_curve(run: Run) -> list[tuple[float, float]]:
    """(epoch, mean loss in nats) of each logging interval of a run."""
    train = [r for r in run.records if r["kind"] == "train" and {"epoch", "loss"} <= r.keys()]
    return [(r["epoch"], r["loss"]) for r in train]


def validation_loss_curve(run: Run) -> list[tuple[float, float]]:
    """(epoch, loss in nats) of each evaluation of a run; of the moving average if it has one."""
    found = [r for r in run.records if r["kind"] == "val" and {"epoch", "loss"} <= r.keys()]
    return [(r["epoch"], r.get("ema_loss", r["loss"])) for r in found]


def rate_curve(run: Run) -> list[tuple[float, float]]:
    """(epoch, learning rate) of each logging interval of a run."""
    train = [r for r in run.records if r["kind"] == "train" and {"epoch", "learning_rate"} <= r.keys()]
    return [(r["epoch"], r["learning_rate"]) for r in train]


def _first(run: Run, target: float) -> float | None:
    return next((seconds for _, seconds, accuracy in validation_curve(run) if accuracy >= target), None)
