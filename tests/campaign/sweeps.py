"""Trials of sweeps: two workers share a study, and a fault strikes one of them or the database under them."""

import json
import pathlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxcnn.study import folder as files
from tests import runs, servers
from tests.campaign import ends

FLAGS = ("--config=tests/tiny_sweep.py", "--nomeasure")
RUNS = 3  # of that sweep
LIMIT = 300.0  # seconds after which a sweep hangs
STORES = ("sqlite", "journal", *(("postgresql",) if servers.found("initdb") else ()))

Server = servers.PostgreSQL | None
Strike = Callable[[list[subprocess.Popen], Server, random.Random], int | None]


def _signal(number: signal.Signals) -> Strike:
    def strike(workers: list[subprocess.Popen], _server: Server, generator: random.Random) -> int | None:
        running = [place for place, worker in enumerate(workers) if worker.poll() is None]
        if not running:
            return None
        place = generator.choice(running)
        workers[place].send_signal(number)
        return place

    return strike


def _restart(_workers: list[subprocess.Popen], server: Server, generator: random.Random) -> None:
    """The database crashes, and comes back after some seconds."""
    assert server is not None
    server.stop()
    time.sleep(generator.uniform(0, 6))
    server.start()


def _freeze(_workers: list[subprocess.Popen], server: Server, generator: random.Random) -> None:
    """The database answers nobody for some seconds."""
    assert server is not None
    server.freeze()
    time.sleep(generator.uniform(1, 8))
    server.freeze(signal.SIGCONT)


FAULTS: dict[str, tuple[Strike, tuple[str, ...]]] = {  # each with the stores that it can strike
    "a killed worker of a sweep": (_signal(signal.SIGKILL), STORES),
    "a stopped worker of a sweep": (_signal(signal.SIGTERM), STORES),
    **({"a database that crashes": (_restart, ("postgresql",))} if "postgresql" in STORES else {}),
    **({"a database that stands still": (_freeze, ("postgresql",))} if "postgresql" in STORES else {}),
}


def trial(seed: int, number: int, folder: pathlib.Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Make one trial of a sweep; its outcome, JSON, as of `tests.campaign.trial`."""
    generator = random.Random(f"{seed}-{number}-sweep")
    reference = _reference(folder / "undisturbed" / "sweep")
    kind = generator.choice(sorted(kinds))
    strike, stores = FAULTS[kind]
    store = generator.choice(stores)
    place = folder / f"trial-{seed}-{number}"
    shutil.rmtree(place, ignore_errors=True)
    with _server(store) as server:
        variables = {"JAXCNN_STORAGE": server.url if server else f"journal:{place}.log"} if store != "sqlite" else {}
        told, wrong = _struck(kind, strike, place, server, variables, generator)
    wrong = wrong or next(filter(None, (_differs(place, reference, n) for n in range(RUNS))), "")
    told["wrong"] = wrong
    if wrong:
        shutil.copytree(place, folder / f"wrong-{seed}-{number}", dirs_exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    pathlib.Path(f"{place}.log").unlink(missing_ok=True)
    run = f"a sweep of {RUNS} runs, 2 workers, {store}"
    return {"seed": seed, "number": number, "run": run, "faults": [told], "wrong": wrong}


def _reference(place: pathlib.Path) -> pathlib.Path:
    """The undisturbed sweep, made unless it is there.

    Raises:
      RuntimeError: it failed, which is a mistake of the campaign.
    """
    if not (place / "made").exists():
        shutil.rmtree(place, ignore_errors=True)
        code, output = runs.run(*FLAGS, f"--workdir={place}", module="jaxcnn.sweep", seconds=900)
        if code:
            raise RuntimeError(f"the undisturbed sweep failed: {output}")
        (place / "made").touch()
    return place


@contextmanager
def _server(store: str) -> Iterator[Server]:
    if store != "postgresql":
        yield None
        return
    with servers.postgresql() as server:
        yield server


def _struck(
    kind: str,
    strike: Strike,
    place: pathlib.Path,
    server: Server,
    variables: dict[str, str],
    generator: random.Random,
) -> tuple[dict[str, Any], str]:
    """Make the sweep with two workers and one fault; what is told of it, and what is wrong in a few words."""
    ready = (*FLAGS, f"--workdir={place}", "--timeout=0", "--heartbeat=1")
    code, output = runs.run(*ready, module="jaxcnn.sweep", **variables)
    told: dict[str, Any] = {"fault": kind, "phase": "", "hit": False, "codes": [], "refused": False, "seconds": 0.0}
    if code:
        return told | {"output": output[-3000:]}, f"it could not be made ready: exit code {code}"

    def worker() -> subprocess.Popen:
        return runs.start("--worker", f"--workdir={place}", module="jaxcnn.sweep", **variables)

    workers, struck = [worker(), worker()], None
    began = time.monotonic()
    moment = began + generator.uniform(1, 14)
    while time.monotonic() < moment and any(each.poll() is None for each in workers):
        time.sleep(0.01)
    told["hit"] = any(each.poll() is None for each in workers)
    told["phase"] = f"{sum(_states(place).values())} runs begun, {_states(place).get('complete', 0)} ended"
    if told["hit"]:
        struck = strike(workers, server, generator)
    for place_of, each in enumerate(workers):
        try:
            output, _ = each.communicate(timeout=max(1.0, LIMIT - (time.monotonic() - began)))
        except subprocess.TimeoutExpired:
            each.kill()
            output, _ = each.communicate()
            return told | {"output": output[-3000:]}, "it hangs"
        told["codes"].append(each.returncode)
        allowed = {0, 75, -signal.SIGKILL} if place_of == struck else {0}
        if wrong := ends.complaint([each.returncode], output, allowed):
            return told | {"output": output[-3000:]}, wrong
    code, output = runs.run("--worker", f"--workdir={place}", module="jaxcnn.sweep", **variables)
    told["seconds"] = round(time.monotonic() - began, 2)
    if wrong := ends.complaint([code], output, {0}):
        return told | {"output": output[-3000:]}, f"after the fault: {wrong}"
    return told, "" if _states(place) == {"complete": RUNS} else f"its runs ended as {_states(place)}"


def _differs(place: pathlib.Path, reference: pathlib.Path, number: int) -> str:
    """What differs between a run of a sweep and that of the undisturbed one, in a few words; empty: no bit."""
    names = ends.differing(*(runs.kept(files.trial_folder(each, number)) for each in (place, reference)))
    return f"run {number} of the sweep ended otherwise: {', '.join(names)}" if names else ""


def _states(place: pathlib.Path) -> dict[str, int]:
    """How many runs of a sweep are in each state."""
    found: dict[str, int] = {}
    for path in sorted((place / files.TRIALS).glob("*/trial.json")):
        state = json.loads(path.read_text())["state"]
        found[state] = found.get(state, 0) + 1
    return found
