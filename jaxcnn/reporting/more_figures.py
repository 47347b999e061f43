"""The figures of the test besides the one that decides, as a table: balanced accuracy, AUROC, F1, loss and others."""

from collections.abc import Mapping
from typing import Any

from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Family, Findings
from jaxcnn.reporting.read import Run
from jaxcnn.reporting.settings import Setting, sample, sample_noun
from jaxcnn.reporting.statistics import Spread, spread
from jaxcnn.reporting.tables import Table, by_name, number, text
from jaxcnn.tasks.headline import Headline

# In the order of the columns; those in per cent are shares.
TITLES = {
    "balanced_accuracy": "balanced accuracy %",
    "macro_auroc": "AUROC %",
    "macro_average_precision": "average precision %",
    "kappa": "kappa",
    "brier_score": "Brier score",
    "macro_precision": "macro precision %",
    "macro_f1": "macro F1 %",
    "micro_f1": "micro F1 %",
    "sample_f1": "sample F1 %",
    "exact_match": "exact match %",
    "top5_accuracy": "top-5 %",
    "calibration_error": "calibration error %",
    "calibrated_error": "calibration error, scaled %",
    "root_mean_squared_error": "root mean squared error",
    "r2": "R²",
    "mask_ap": "mask AP %",
    "mask_ap50": "mask AP50 %",
    "mask_ap75": "mask AP75 %",
    "ap": "AP %",
    "ap50": "AP50 %",
    "ap75": "AP75 %",
    "ar": "AR %",
    "mask_ap_small": "mask AP small %",
    "mask_ap_medium": "mask AP medium %",
    "mask_ap_large": "mask AP large %",
    "ap_small": "AP small %",
    "ap_medium": "AP medium %",
    "ap_large": "AP large %",
    "mean_dice": "mean Dice %",
    "overall_accuracy": "pixels right %",
    "loss": "loss",
}
NO_FIGURES = ("examples", "step", "of_step", "temperature", "crc32", "macro_recall")  # the last is balanced accuracy
NO_BEGINNINGS = ("tta_", "ema_", "ar_", "mask_ar")  # the last two: for few boxes or by size, where AP says more
MACRO = {"balanced_accuracy", "macro_auroc"}
MEANS = (
    "Balanced accuracy is the mean of the recalls of the classes; AUROC is the mean over the classes, each against the "
    "rest (macro)."
)
PLAIN = {"loss", "top5_accuracy"}  # these alone make no table
MOST_COLUMNS = 9
FEW_CLASSES = 5  # with so few, top-5 accuracy is always 1


def by_family(findings: Findings) -> dict[str, Table]:
    """A table, by name, for each family whose tests have such figures."""
    return by_name(map(_of_family, findings.families))


def figures(run: Run) -> dict[str, float]:
    """The figures of a run's test by name, without the figure that decides.

    F1 is measured at the thresholds chosen on validation, if there are any. R² and the root mean squared error are
    those of a single number; with several, each has its own in `test.json`.
    """
    test = run.test or {}
    f1 = test.get("at_thresholds") or test.get("at_half") or {}
    left = {run.headline.name, *NO_FIGURES}
    if run.confusion and run.confusion.classes <= FEW_CLASSES:
        left.add("top5_accuracy")
    return {
        name: float(value)
        for name, value in (test | _single(test.get("by_name")) | f1).items()
        if isinstance(value, int | float) and name not in left and not name.startswith(NO_BEGINNINGS)
    }


def _single(by_name: Any) -> dict[str, Any]:
    """The only value of a mapping; empty if it has several."""
    return next(iter(by_name.values())) if isinstance(by_name, Mapping) and len(by_name) == 1 else {}


def _of_family(family: Family) -> Table | None:
    of_runs = {id(run): figures(run) for setting in family.settings for run in setting.finished}
    settings = [setting for setting in family.settings if any(of_runs[id(run)] for run in setting.finished)]
    found = {name for of_run in of_runs.values() for name in of_run}
    if found <= PLAIN:
        return None
    names = [name for name in (*TITLES, *sorted(found - set(TITLES))) if name in found][:MOST_COLUMNS]
    titles = [TITLES.get(name, name.replace("_", " ")) for name in names]
    noun = f"{sample_noun(settings[0])}s"
    rows = []
    for setting in settings:
        spreads = [_spread(setting, name, [of_runs[id(run)].get(name) for run in setting.finished]) for name in names]
        figures_of = [number(of.mean if of else None, labels.percent_spread(of)) for of in spreads]
        rows.append([text(setting.described), number(len(setting.seeds), str(len(setting.seeds))), *figures_of])
    place = f"{family.architecture} on {family.dataset}"
    notes = [f"Mean ± standard deviation over {noun}. These figures decide nothing."]
    notes += [MEANS] * bool(MACRO & set(names))
    return Table(
        f"figures-{labels.slug(place)}", f"More figures of the test: {place}", ["setting", noun, *titles], rows,
        frozenset({noun, *titles}), notes,
    )  # fmt: skip


def _spread(setting: Setting, name: str, values: list[float | None]) -> Spread | None:
    found = spread(values, [sample(run) for run in setting.finished])
    return found and Spread(found.values, Headline(name, name, percent=TITLES.get(name, "").endswith("%")))
