"""Makes a run longer: the length in its config, and the settings that depend on the length."""

from collections.abc import Mapping
from typing import Any

KEYS = ("run.epochs", "run.steps")
_FREE_SCHEDULES = ("constant", "multistep", "restarts")  # their rate at a step does not depend on the length of the run


def of(flat: Mapping[str, Any]) -> tuple[str, float]:
    """The unit and the length of a run, from its flat config."""
    return ("steps", flat["run.steps"]) if flat["run.steps"] else ("epochs", flat["run.epochs"])


def why_not_longer(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The reason why a run of the flat config `there` cannot continue with the length of `here`; empty if it can.

    It can if the result is, to the bit, that of a run configured with the new length from the start.
    """
    (unit, before), (new_unit, after) = of(there), of(here)
    if unit != new_unit:
        return f"the length of this run is in {unit}"
    if after < before:
        return "a run can only be made longer, not shorter"
    if after == before:
        return ""
    deciding = []
    if here["schedule.name"] not in _FREE_SCHEDULES:
        deciding.append(f"config.schedule.name={here['schedule.name']!r}")
    elif here["schedule.warmup"] and (here["schedule.unit"] != unit or here["schedule.warmup"] > before):
        deciding.append(f"config.schedule.warmup={here['schedule.warmup']:g} {here['schedule.unit']}")
    if here["augment.small_sides"]:
        deciding.append("config.augment.small_until")
    if here["augment.single_from"]:
        deciding.append("config.augment.single_from")
    if here["optim.swa_from"]:
        deciding.append("config.optim.swa_from")
    if here["prune.sparsity"] or here["prune.layers"]:
        deciding.append("config.prune")
    return f"what {' and '.join(deciding)} does depends on the length" if deciding else ""
