"""The costs of settings with different networks, beside the figure that decides."""

from jaxcnn.reporting import labels
from jaxcnn.reporting.findings import Findings
from jaxcnn.reporting.settings import Setting
from jaxcnn.reporting.tables import Cell, Table, number, text

PARAMETERS, OPERATIONS = "parameters", "training_flops_per_image"
MEMORY = "training_working_bytes"


def table(findings: Findings) -> Table:
    """A table with a row for each setting of a family whose settings differ in parameters or operations."""
    families = [family.settings for family in findings.families if _differ(family.settings)]
    rows = []
    for setting in (each for members in families for each in members):
        validation, seconds = setting.validation, setting.train_seconds
        rows.append([
            text(setting.dataset), text(setting.architecture), text(setting.described),
            number(validation.mean if validation else None, labels.percent_spread(validation)),
            _count(_of(setting, PARAMETERS), 1, ""), _count(_of(setting, OPERATIONS), 1e6, " M"),
            _count(_of(setting, MEMORY), 2**20, " MiB"),
            number(seconds.mean if seconds else None, labels.seconds_spread(seconds)),
        ])  # fmt: skip
    columns = ["data", "network", "setting", "validation %", "parameters", "FLOP per image", "memory", "training"]
    notes = [
        "FLOP per image: of a training step, forward and backward, divided by its images, as XLA counts them before "
        "optimisation. Memory: the most that a step works with on one device, beside weights, optimiser and images, as "
        "XLA plans it. “Is the difference real?” says which differences exceed the spread over seeds."
    ]
    return Table("costs", "What the networks cost", columns, rows, frozenset(columns[3:]), notes)


def _differ(settings: list[Setting]) -> bool:
    return any(len({_of(setting, name) for setting in settings} - {None}) > 1 for name in (PARAMETERS, OPERATIONS))


def _of(setting: Setting, name: str) -> float | None:
    """A figure of the first finished run, which is equal in all runs: it does not depend on the seed."""
    return next((run.summary.get(name) for run in setting.finished if run.summary), None)


def _count(of: float | None, unit: float, name: str) -> Cell:
    return number(of, "–" if of is None else f"{of / unit:,.{0 if unit == 1 else 1}f}{name}")
