"""One trial: a run that faults strike, started again until it ends, and held against the undisturbed one."""

import contextlib
import dataclasses
import pathlib
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from tests.campaign import draws, ends, faults, machines, speed, sweeps
from tests.campaign.draws import EVERY
from tests.campaign.struck import start
from tests.campaign.watched import Watched

SWEEPS = 0.1  # part of the trials that are sweeps
FRESH = (
    0.05  # part of the trials whose starts are each a new Python; the others are forked from one that has imported jax
)
IN_A_ROW = (1, 2, 4, 6, 8, 10)  # faults that strike a run one after the other, unless it ends before
MOVED = 0.08  # part of the trials in which each start has another number of devices than the one before
STARTS = 4  # after the last fault, a run must end within so many
DISK = "48m"  # of the workdir, where the disk becomes full


@dataclasses.dataclass(frozen=True)
class Asked:
    """What of all runs and faults is drawn.

    Attributes:
      kinds: kinds of faults.
      shapes: how many runs are drawn for a seed.
      phases: the only ones that are struck, where a fault can strike in them; empty: all.
      runs: words by which each run is described, also `draws.MOVED`.
    """

    kinds: tuple[str, ...]
    shapes: int = 8
    phases: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


def trial(seed: int, number: int, folder: pathlib.Path, asked: Asked) -> dict[str, Any]:
    """Make one trial; its outcome, JSON."""
    kinds = asked.kinds
    generator = random.Random(f"{seed}-{number}")
    of_sweeps = tuple(kind for kind in kinds if kind in sweeps.FAULTS)
    kinds = tuple(kind for kind in kinds if kind in faults.FAULTS)
    if of_sweeps and not asked.runs and (not kinds or random.Random(f"{seed}-{number}-kind").random() < SWEEPS):
        return sweeps.trial(seed, number, folder, of_sweeps)
    words = tuple(each for each in asked.runs if each != draws.MOVED)
    draw = draws.wanted(seed, generator.randrange(asked.shapes), words)
    reference = draws.reference(draw, folder / "undisturbed")
    fresh = generator.random() < FRESH
    if draw.processes == 1 and len(kinds) > 1:
        kinds = tuple(kind for kind in kinds if kind != "a cut link")
    weights = [faults.OFTEN.get(kind, 1.0) for kind in kinds]
    drawn = generator.choices(kinds, weights, k=generator.choice(IN_A_ROW[:2] if fresh else IN_A_ROW))
    place = folder / f"trial-{seed}-{number}"
    outcome: dict[str, Any] = {"seed": seed, "number": number, "run": draw.words, "faults": [], "wrong": ""}
    outcome |= {"fresh": fresh}
    of_run = dataclasses.replace(reference.draw, fresh=fresh, phases=asked.phases)
    if draws.MOVED in asked.runs or random.Random(f"{seed}-{number}-devices").random() < MOVED:
        outcome["devices"] = []
    with _folder(place, mounted=bool(set(drawn) & set(machines.MOUNTED))) as workdir:
        for kind in drawn:
            told = _strike(kind, _next(of_run, outcome), workdir, generator)
            outcome["faults"].append(told)
            if told["wrong"] or set(told["codes"]) == {0}:
                break
        wrong = told["wrong"]
        if not wrong:
            moved = "devices" in outcome or any(told["fault"] == "other devices" for told in outcome["faults"])
            wrong = _finish(of_run, reference.folder, workdir, outcome, moved)
        outcome["wrong"] = wrong
        outcome["slow"] = "" if wrong else speed.slow(outcome, of_run, reference.folder)
        if wrong:
            shutil.copytree(workdir, folder / f"wrong-{seed}-{number}", dirs_exist_ok=True)
    return outcome


def _next(draw: draws.Draw, outcome: dict[str, Any]) -> draws.Draw:
    """The run with the devices of its next start, which the outcome tells if they change."""
    if (seen := outcome.get("devices")) is None:
        return draw
    places = (*faults.others(draw.devices), draw.devices)
    seen.append(places[len(seen) % len(places)])
    return dataclasses.replace(draw, devices=seen[-1])


def _strike(kind: str, draw: draws.Draw, workdir: pathlib.Path, generator: random.Random) -> dict[str, Any]:
    """One fault, and the end of the start that it struck."""
    struck = faults.FAULTS[kind](draw, workdir, generator)
    codes, output, seconds = struck.watched.end()
    told = {"fault": kind, "phase": struck.phase, "hit": struck.hit, "codes": codes, "seconds": round(seconds, 2)}
    told |= {name: value for name, value in struck.told.items() if name != "second"}
    seen = output.replace("Traceback", "traceback") if struck.may_trace else output
    wrong = ends.complaint(codes, seen, struck.allowed)
    if "second" in struck.told:
        wrong = wrong or f"the second run was not refused: {struck.told['second']}"
    told |= {"refused": 2 in codes, "wrong": wrong, **_repeated(struck.watched, output)}
    if wrong:
        told["output"] = output[-3000:]
    finished = re.search(r"^jaxcnn: .*\njaxcnn: .* is finished", output, re.MULTILINE)  # and tells what is damaged
    if kind != "a damaged file" or 2 in codes or finished:
        struck.undo()
    if told["refused"] or finished:
        told["said"] = output.strip().splitlines()[-2 if finished else -1][:300]
    return told


def _repeated(watched: Watched, output: str) -> dict[str, Any]:
    """Steps of work that a start repeated, and its seconds to its first step, with those of a first start apart."""
    found = re.search(r"resumed from the checkpoint of step (\d+)", output)
    ready = watched.seconds_to(speed.FIRST_STEP)
    if not watched.before or (found is None and "\nstep " not in output):  # it ended before its first step
        return {} if watched.before or ready is None else {"ready first": round(ready, 2)}
    since = int(found[1]) if found else 0
    return {"repeated": max(0, watched.before[-1] - since)} | ({"ready": round(ready, 2)} if ready else {})


def _finish(
    draw: draws.Draw, undisturbed: pathlib.Path, workdir: pathlib.Path, outcome: dict[str, Any], moved: bool
) -> str:
    """Start a run until it ends; what is wrong with its end, in a few words."""
    for _ in range(STARTS):
        watched = start(_next(draw, outcome), workdir)
        codes, output, _ = watched.end()
        if wrong := ends.complaint(codes, output, {0, 75}):
            outcome["output"] = output[-3000:]
            return f"after the cause was removed: {wrong}"
        outcome.setdefault("restarts", []).append(_repeated(watched, output))
        if set(codes) == {0}:
            outcome |= ends.facts(workdir)
            differ = ends.differs(workdir, undisturbed, moved)
            return f"the end differs: {differ}" if differ else ""
    return f"it did not end in {STARTS} starts"


@contextlib.contextmanager
def _folder(place: pathlib.Path, mounted: bool) -> Iterator[pathlib.Path]:
    """A new workdir, on a file system of its own if `mounted`; removed afterwards."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "campaign", str(place)], check=True)
    try:
        (place / "run").mkdir()
        yield place / "run"
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        shutil.rmtree(place, ignore_errors=True)


def late(outcome: dict[str, Any]) -> bool:
    """Whether a trial repeated more than an interval between checkpoints, and the steps made while one was saved.

    Where a checkpoint was damaged or lost, the run goes on from the one before it.
    """
    starts = [fault for fault in outcome["faults"] if fault["fault"] != "a damaged file"] + outcome.get("restarts", [])
    return any(start.get("repeated", 0) > 2 * EVERY for start in starts)
