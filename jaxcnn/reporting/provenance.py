"""The origin of figures: machines, versions, commands, and differences of configs from the defaults."""

import datetime
import itertools
import json
import shlex
from typing import Any

from jaxcnn.reporting import sound
from jaxcnn.reporting.read import Run, Sweep

UNKNOWN = "unknown machine"


def machine(run: Run) -> str:
    """The hardware of a run in words: "2 cores of AMD EPYC", "4 x NVIDIA H100"."""
    environment, devices = run.environment, str((run.summary or {}).get("device", ""))
    if not environment:
        return f"{UNKNOWN} ({devices})" if devices else UNKNOWN
    kind = environment.get("device", "")
    if environment.get("backend", "cpu") == "cpu":
        # The runtime's name of the processor is just "cpu"; several devices are parts of one processor.
        used = device_count(run) or 1
        parts = f", {used} devices" if used > 1 else ""
        cores = environment.get("cores")
        return f"{cores} core{'' if cores == 1 else 's'} of {environment.get('processor', 'a CPU')}{parts}"
    return devices or f"{environment.get('devices')} x {kind}"


def device_count(run: Run) -> int | None:
    """The number of devices on which a run trained."""
    first = str((run.summary or {}).get("device", "")).split(" ")[0]
    return int(first) if first.isdecimal() and len(first) < 9 else None


def environments(runs: list[Run]) -> list[dict[str, Any]]:
    """The distinct machines and versions, each with its number of runs; the most frequent first."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        if not run.environment:
            continue
        facts = {
            "machine": machine(run),
            "commit": run.environment.get("commit"),
            "python": run.environment.get("python"),
            "platform": run.environment.get("platform"),
            "packages": run.environment.get("packages") or {},
        }
        entry = found.setdefault(json.dumps(facts, sort_keys=True, default=str), facts | {"runs": 0})
        entry["runs"] += 1
    return sorted(found.values(), key=lambda entry: -entry["runs"])


def commands(runs: list[Run], sweeps: list[Sweep]) -> list[dict[str, Any]]:
    """The distinct commands, each with its number of runs; those of sweeps first."""
    found: dict[str, int] = {}
    for sweep in sweeps:
        lines = [*map(command_line, sweep.facts.get("commands") or [sweep.facts.get("command")])]
        for line in filter(None, lines):
            of = [run for run in sweep.runs if command_line(run.environment.get("command")) == line]
            found[line] = len(of) if len(lines) > 1 else len(sweep.runs)
    in_sweeps = {id(run) for sweep in sweeps for run in sweep.runs}
    for run in runs:
        line = command_line(run.environment.get("command"))
        if line and not (id(run) in in_sweeps and found):
            found[line] = found.get(line, 0) + 1
    return [{"command": line, "runs": count} for line, count in found.items()]


def command_line(command: Any) -> str:
    """A command as typed in a shell."""
    if not isinstance(command, list):
        return str(command or "")
    words = [str(word) for word in command]
    if words and words[0].endswith(".py") and "/" not in words[0]:
        words[:1] = ["python", "-m", f"jaxcnn.{words[0].removesuffix('.py')}"]
    return shlex.join(words)


def changed(config: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys of a flat config that differ from their default: {key: (value, default)}."""
    defaults = sound.default_config()
    return {
        key: (value, defaults.get(key)) for key, value in config.items() if key != "seed" and value != defaults.get(key)
    }


def overlapping(runs: list[Run]) -> bool:
    """Whether trials ran at the same time on one machine, so that their times include each other's load.

    Those of a population do not count: the time of each is its share (see `in_populations`).
    """
    spans: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        trial = run.trial or {}
        if "population" in trial:
            continue
        began, ended = _moment(trial.get("started") or trial.get("began")), _moment(trial.get("ended"))
        if began is not None and ended is not None:
            spans.setdefault(machine(run), []).append((began, ended))
    for times in spans.values():
        times.sort()
        if any(later[0] < earlier[1] - 1 for earlier, later in itertools.pairwise(times)):
            return True
    return False


def in_populations(runs: list[Run]) -> int:
    """The number of trials trained together with others in a population."""
    return sum("population" in (run.trial or {}) for run in runs)


def _moment(value: Any) -> float | None:
    """Seconds since 1970, from a number or an ISO 8601 text."""
    if isinstance(value, int | float):
        return float(value)
    try:
        return datetime.datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return None
