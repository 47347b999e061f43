"""Trials of sweeps: faults strike one of two workers who share a study, the database under them, or a population."""

import contextlib
import json
import pathlib
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jaxcnn.study import folder as files
from tests import runs, servers
from tests.campaign import ends

FLAGS = ("--config=tests/tiny_sweep.py", "--nomeasure")
TOGETHER = {"a population by vmap": "vmap", "a population in turn": "in_turn"}  # and its --population_way
RUNS = 3  # of that sweep
IN_A_ROW = (1, 2, 3)  # faults that strike a sweep
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
    "a killed population": (_signal(signal.SIGKILL), tuple(TOGETHER)),
    "a stopped population": (_signal(signal.SIGTERM), tuple(TOGETHER)),
    **({"a database that crashes": (_restart, ("postgresql",))} if "postgresql" in STORES else {}),
    **({"a database that stands still": (_freeze, ("postgresql",))} if "postgresql" in STORES else {}),
}


def trial(seed: int, number: int, folder: pathlib.Path, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Make one trial of a sweep; its outcome, JSON, as of `tests.campaign.trial`."""
    generator = random.Random(f"{seed}-{number}-sweep")
    kind = generator.choice(sorted(kinds))
    strike, stores = FAULTS[kind]
    store = generator.choice(stores)
    together = store in TOGETHER
    flags = (*FLAGS, "--population=3", f"--population_way={TOGETHER[store]}") if together else FLAGS
    reference, seconds = _reference(folder / "undisturbed" / (TOGETHER[store] if together else "sweep"), flags)
    place = folder / f"trial-{seed}-{number}"
    shutil.rmtree(place, ignore_errors=True)
    moments = [generator.uniform(0.05, 1.1) * seconds for _ in range(generator.choice(IN_A_ROW))]
    if together:
        told, wrong = _of_population(kind, strike, flags, place, moments, generator)
    else:
        with _server(store) as server:
            url = server.url if server else f"journal:{place}.log"
            variables = {"JAXCNN_STORAGE": url} if store != "sqlite" else {}
            told, wrong = _struck(kind, strike, place, server, variables, sorted(moments), generator)
    wrong = wrong or next(filter(None, (_differs(place, reference, n) for n in range(RUNS))), "")
    told[-1]["wrong"] = wrong
    if wrong:
        shutil.copytree(place, folder / f"wrong-{seed}-{number}", dirs_exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    pathlib.Path(f"{place}.log").unlink(missing_ok=True)
    run = f"a sweep of {RUNS} runs, {store if together else f'2 workers, {store}'}"
    return {"seed": seed, "number": number, "run": run, "faults": told, "wrong": wrong}


_making = threading.Lock()


def _reference(place: pathlib.Path, flags: tuple[str, ...]) -> tuple[pathlib.Path, float]:
    """The undisturbed sweep, made unless it is there, and the seconds that it takes once its programs are kept.

    Raises:
      RuntimeError: it failed, which is a mistake of the campaign.
    """
    with _making:
        made = place / "made"
        while not made.exists() or float(made.read_text()) < 0:
            again = made.exists()
            shutil.rmtree(place, ignore_errors=True)
            began = time.monotonic()
            code, output = runs.run(*flags, f"--workdir={place}", module="jaxcnn.sweep", seconds=900)
            if code:
                raise RuntimeError(f"the undisturbed sweep failed: {output}")
            made.write_text(str(time.monotonic() - began if again else -1))
        return place, float(made.read_text())


@contextlib.contextmanager
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
    moments: list[float],
    generator: random.Random,
) -> tuple[list[dict[str, Any]], str]:
    """Make the sweep with two workers and faults, with a new worker for each that is lost.

    Returns:
      What is told of each fault; what is wrong, in a few words.
    """
    ready = (*FLAGS, f"--workdir={place}", "--timeout=0", "--heartbeat=1")
    code, output = runs.run(*ready, module="jaxcnn.sweep", **variables)
    told = [_told(kind)]
    if code:
        told[-1]["output"] = output[-3000:]
        return told, f"it could not be made ready: exit code {code}"

    def worker() -> subprocess.Popen:
        return runs.start("--worker", f"--workdir={place}", module="jaxcnn.sweep", **variables)

    workers, lost = [worker(), worker()], set()
    began = time.monotonic()
    for count, moment in enumerate(moments):
        while time.monotonic() < began + moment and any(each.poll() is None for each in workers):
            time.sleep(0.01)
        told += [_told(kind)] if count else []
        told[-1]["phase"] = _progress(place)
        told[-1]["hit"] = any(each.poll() is None for each in workers)
        if not told[-1]["hit"]:
            break
        if (struck := strike(workers, server, generator)) is not None:
            lost.add(struck)
            workers.append(worker())
    for place_of, each in enumerate(workers):
        try:
            output, _ = each.communicate(timeout=max(1.0, LIMIT - (time.monotonic() - began)))
        except subprocess.TimeoutExpired:
            each.kill()
            output, _ = each.communicate()
            told[-1]["output"] = output[-3000:]
            return told, "it hangs"
        told[-1]["codes"].append(each.returncode)
        allowed = {0, 75, -signal.SIGKILL} if place_of in lost else {0}
        if wrong := ends.complaint([each.returncode], output, allowed):
            told[-1]["output"] = output[-3000:]
            return told, wrong
    code, output = runs.run("--worker", f"--workdir={place}", module="jaxcnn.sweep", **variables)
    told[-1]["seconds"] = round(time.monotonic() - began, 2)
    if wrong := ends.complaint([code], output, {0}):
        told[-1]["output"] = output[-3000:]
        return told, f"after the fault: {wrong}"
    return told, "" if _states(place) == {"complete": RUNS} else f"its runs ended as {_states(place)}"


def _of_population(
    kind: str,
    strike: Strike,
    flags: tuple[str, ...],
    place: pathlib.Path,
    moments: list[float],
    generator: random.Random,
) -> tuple[list[dict[str, Any]], str]:
    """As `_struck`, of runs whose steps one process makes together: it is struck, and started again, in turn."""
    told: list[dict[str, Any]] = []
    for moment in (*moments, None):
        began = time.monotonic()
        process = runs.start(*flags, f"--workdir={place}", module="jaxcnn.sweep")
        if moment is not None:
            told.append(_told(kind))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            told[-1] |= {"phase": _progress(place), "hit": process.poll() is None}
            strike([process], None, generator)
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return told, "it hangs"
        told[-1]["codes"].append(process.returncode)
        told[-1]["seconds"] = round(time.monotonic() - began, 2)
        allowed = {0} if moment is None else {0, 75, -signal.SIGKILL}
        if wrong := ends.complaint([process.returncode], output, allowed):
            told[-1]["output"] = output[-3000:]
            return told, wrong
        if process.returncode == 0:
            break
    return told, "" if _states(place) == {"complete": RUNS} else f"its runs ended as {_states(place)}"


def _told(kind: str) -> dict[str, Any]:
    return {"fault": kind, "phase": "", "hit": False, "codes": [], "refused": False, "seconds": 0.0}


def _progress(place: pathlib.Path) -> str:
    states = _states(place)
    return f"{sum(states.values())} runs begun, {states.get('complete', 0)} ended"


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
