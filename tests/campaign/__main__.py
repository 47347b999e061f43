"""Disturb small runs at random, and hold each against the undisturbed run, bit for bit.

    python -m tests.campaign --minutes=30 --seed=1 [--folder=build/faults] [--page=results/faults.md]

Each outcome is a line of `outcomes.jsonl` in the folder: the same command goes on after the last one, and further seeds
add up. With --page they are also kept beside the page, as .jsonl, and the page tells of all that were ever kept there.
Undisturbed runs are made once for each version of the code. Exit code 1: something went wrong, or was too slow
(`tests.campaign.speed`).
Full and read-only disks, limits of memory and cut links need root; they are left out without it.
"""

import argparse
import concurrent.futures
import hashlib
import itertools
import json
import os
import pathlib
import threading
import time

from tests import conftest, runs
from tests.campaign import draws, faults, kept, sweeps
from tests.campaign.page import page
from tests.campaign.trial import Asked, late, trial
from tests.campaign.watched import PHASES


def version() -> str:
    """A name for the sources of jaxcnn as they are now."""
    sources = sorted((runs.ROOT / "jaxcnn").rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def main() -> int:
    """Make trials until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0, help="no trial begins after these")
    parser.add_argument("--seed", type=int, default=0, help="of the draws of runs and faults")
    parser.add_argument("--folder", type=pathlib.Path, default=runs.ROOT / "build" / "faults")
    parser.add_argument("--page", type=pathlib.Path, help="write the page of all outcomes to this file")
    parser.add_argument("--shapes", type=int, default=8, help="how many runs are drawn for a seed")
    parser.add_argument("--jobs", type=int, default=2, help="trials at once: much of one is waiting")
    parser.add_argument("--only", type=int, help="only the trial of this number, again")
    parser.add_argument(
        "--faults", nargs="*", default=[], choices=[*faults.FAULTS, *sweeps.FAULTS], help="only these; default: all"
    )
    parser.add_argument("--phases", nargs="*", default=[], choices=PHASES, help="strike only in these; default: all")
    parser.add_argument(
        "--runs",
        nargs="*",
        default=[],
        help=f"words that describe each run: 'fine-tuned', '2 processes', {draws.MOVED!r}",
    )
    given = parser.parse_args()
    names = ("minutes", "seed", "shapes", "jobs", "only")
    flags = [f"--{name}={value}" for name in names if (value := getattr(given, name)) is not None]
    for name in ("faults", "phases", "runs"):
        flags += [f"--{name}", *map(repr, getattr(given, name))] if getattr(given, name) else []
    command = " ".join(["python -m tests.campaign", *flags])
    os.environ["JAXCNN_CACHE"] = str(given.folder.absolute() / "cache")
    assert conftest.compile_cache()  # which has set the environment of the runs
    kinds = tuple(given.faults or (kind for kind in (*faults.FAULTS, *sweeps.FAULTS) if kind not in faults.UNABLE))
    if os.geteuid():
        kinds = tuple(kind for kind in kinds if kind not in faults.OF_ROOT)
    asked = Asked(kinds, given.shapes, tuple(given.phases), tuple(given.runs))
    folder = given.folder.absolute() / version()
    folder.mkdir(parents=True, exist_ok=True)
    file = given.folder / "outcomes.jsonl"
    outcomes = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {outcome["number"] for outcome in outcomes if outcome["seed"] == given.seed}
    numbers = (number for number in itertools.count() if number not in done)
    if given.only is not None:
        numbers = iter([given.only])
    deadline, lock = time.monotonic() + 60 * given.minutes, threading.Lock()

    def work() -> int:
        """Make trials until the time is over; how many went wrong."""
        wrong = 0
        while time.monotonic() < deadline:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            began = time.monotonic()
            outcome = trial(given.seed, number, folder, asked)
            outcome |= {"shapes": given.shapes, "seconds": round(time.monotonic() - began, 2), "command": command}
            outcome["load"] = round(os.getloadavg()[1], 1)
            with lock, file.open("a") as lines:
                outcomes.append(outcome)
                lines.write(json.dumps(outcome) + "\n")
            wrong += bool(outcome["wrong"] or outcome.get("slow")) or late(outcome)
            what = ", ".join(f"{fault['fault']} in {fault['phase']}" for fault in outcome["faults"])
            told = outcome["wrong"] or outcome.get("slow") or "the end of the undisturbed run"
            print(f"{number}: {outcome['run']}: {what}: {told}", flush=True)
        return wrong

    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        wrong = sum(future.result() for future in [pool.submit(work) for _ in range(given.jobs)])
    if given.page and outcomes:
        given.page.write_text(page(*kept.added(given.page.with_suffix(".jsonl"), outcomes)))
    return min(wrong, 1)


if __name__ == "__main__":
    raise SystemExit(main())
