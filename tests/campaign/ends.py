"""Whether a disturbed run ended as the undisturbed one."""

import json
import pathlib
import signal
from typing import Any

from tests import runs
from tests.campaign.draws import STEPS

NEAR = 0.02  # of a loss on other devices: rounding of 24 steps is far below, another order of images far above


def differs(workdir: pathlib.Path, reference: pathlib.Path, moved: bool = False) -> str:
    """What differs, in a few words; empty: nothing, bit for bit, times aside.

    `moved`: the run changed its number of devices, which rounds sums in another order: then the steps and kinds of the
    records must be equal, and losses within `NEAR`.
    """
    there = runs.kept(reference)
    try:
        here = runs.kept(workdir)
    except (OSError, ValueError) as error:
        return f"a file cannot be read: {error}"
    for kept in (here, there):
        for name in ("starting.json", "init.json"):
            kept.pop(name, None)  # times of reading weights
        kept.get("config.json", {}).pop("hosts", None)  # each start of two processes has a port of its own
    mine, its = here.pop("checkpoints"), there.pop("checkpoints")
    sound = {name for name in mine if name.isdigit()}
    wanted = {str(STEPS), str(there["summary.json"]["val_best"]["step"])}
    if moved:
        return _strays(here["records"], there["records"])
    if lacking := wanted - sound:
        return f"checkpoints {', '.join(sorted(lacking))} are not there"
    # A stop saves its step, which the undisturbed run does not.
    if other := sorted(name for name in sound & its.keys() if mine[name] != its[name]):
        return f"checkpoints {', '.join(other)} differ"
    return ", ".join(differing(here, there))


def differing(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """The names of what two runs keep differently, or only one of them."""
    return sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))


def _strays(here: list[dict[str, Any]], there: list[dict[str, Any]]) -> str:
    shape = [[(record["kind"], record["step"]) for record in records] for records in (here, there)]
    if shape[0] != shape[1]:
        return "the steps of its records differ"
    far = [one["step"] for one, two in zip(here, there, strict=True) if abs(one["loss"] - two["loss"]) > NEAR]
    return f"the losses of steps {far} are further off than {NEAR}" if far else ""


def complaint(codes: list[int], output: str, allowed: set[int]) -> str:
    """What is wrong with how a start ended, in a few words; empty: nothing."""
    if 124 in codes:
        return "it hangs"
    if -signal.SIGINT in codes and f"{runs.ROOT}/jaxcnn/" not in output and output.endswith("KeyboardInterrupt\n"):
        return ""  # Python was still starting: no command catches it then, and nothing was begun
    if "Traceback (most recent call last)" in output:
        return "a traceback: " + output.strip().splitlines()[-1][:200]
    if not set(codes) <= allowed:
        return f"exit codes {codes}: {' / '.join(output.strip().splitlines()[-2:])[:300]}"
    return ""


def facts(workdir: pathlib.Path) -> dict[str, Any]:
    """How often the run was started, for the record of a trial."""
    try:
        return {"starts": json.loads((workdir / "summary.json").read_text()).get("starts")}
    except (OSError, ValueError):
        return {}
