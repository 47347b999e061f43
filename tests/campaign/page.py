"""`results/faults.md`: the outcomes of all trials so far."""

import collections
import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tests.campaign import faults, speed, sweeps
from tests.campaign.draws import EVERY, MOVED, NETWORKS, OPTIONS, SOURCES, STEPS, WITH_SOURCE
from tests.campaign.ends import NEAR
from tests.campaign.kept import EARLIER
from tests.campaign.watched import PHASES

DAMAGED = "a damaged file"
HEAD = ("fault", "struck in time", "too late", "went on by itself", "refused in one line", "wrong")


def page(outcomes: Sequence[dict[str, Any]], earlier: Sequence[dict[str, Any]] = ()) -> str:
    """The page, in Markdown; of a trial that was made again with the same faults, the last outcome counts.

    Args:
      outcomes: outcomes of trials.
      earlier: counts of pages whose outcomes were not kept (`tests.campaign.kept`).
    """
    last = {_trial(outcome): outcome for outcome in outcomes}
    repeated = [outcome for outcome in outcomes if outcome is not last[_trial(outcome)]]
    mended = [each for each in repeated if each["wrong"] and _is_mended(each, last[_trial(each)])]
    outcomes = [*last.values(), *(each for each in repeated if each["wrong"] and each not in mended)]
    made = ", ".join(dict.fromkeys(f"`{_command(outcome)}`" for outcome in outcomes))
    seeds = ", ".join(map(str, sorted({outcome["seed"] for outcome in outcomes})))
    struck = [fault for outcome in outcomes for fault in outcome["faults"] if fault["hit"]]
    wrong = [outcome for outcome in outcomes if outcome["wrong"]]
    moved = sum(not outcome["wrong"] and _moved(outcome) for outcome in outcomes)
    sweeps = sum(outcome["run"].startswith("a sweep") for outcome in outcomes)
    fresh = sum(outcome.get("fresh", False) for outcome in outcomes)
    lines = [
        "# Faults",
        "",
        *_earlier(earlier, len(struck), len(outcomes)),
        f"{len(struck)} faults struck {len(outcomes) - sweeps} runs of {STEPS} steps with a checkpoint every {EVERY}, "
        f"and {sweeps} sweeps of three runs by two workers or as a population, drawn at random (seeds {seeds}). "
        f"{len(outcomes) - len(wrong) - moved} ended with the bits of the undisturbed one, and {moved} that went on "
        f"with other devices with its records, up to the rounding of sums (losses within {NEAR:g}), after the cause "
        "was removed where the fault has one that lasts.",
        "",
        f"Each start of {fresh} of the runs was a new Python, also where a clock jumps or a link is cut. The other "
        "processes were forked from one that had imported jax and initialised nothing.",
        "",
        *_table(outcomes, earlier),
        "",
        *_phases(struck, earlier),
        "",
        *_shapes(outcomes),
        "",
        *_times(outcomes, earlier),
        "",
        f"Made by {made} on {platform.machine()}, {os.cpu_count()} cores. How, and what is compared: "
        "[Reliability](../docs/reliability.md).",
    ]
    if took := [outcome["seconds"] for outcome in outcomes if "seconds" in outcome]:
        each = sum(took) / max(1, len(struck))
        lines[2 + 2 * bool(earlier)] += f" A fault took {each:.0f} s, undisturbed runs and compiling included."
    slow = [outcome | {"wrong": outcome["slow"] + _load(outcome)} for outcome in outcomes if outcome.get("slow")]
    for title, those in (
        ("What went wrong", wrong),
        ("What was too slow", slow),
        ("What went wrong, was mended, and did not come again", mended),
    ):
        before = [line for each in earlier for line in each["mended"]] if those is mended else []
        lines += ["", f"## {title}", ""] if those or before else []
        lines += before
        for outcome in those:
            kinds = ", ".join(fault["fault"] for fault in outcome["faults"])
            place = f"--seed={outcome['seed']} --shapes={outcome.get('shapes', 8)} --only={outcome['number']}"
            lines.append(
                f"- `{place}{_asked(outcome)}`: {outcome['run']}; {kinds}: {' '.join(outcome['wrong'].split())}"
            )
    for each in earlier:
        lines += ["", "## Earlier campaigns", "", each[EARLIER]]
    return "\n".join(lines) + "\n"


def _trial(outcome: dict[str, Any]) -> tuple[Any, ...]:
    """What a trial is known by; the run tells apart trials that were drawn by other versions of the campaign."""
    return outcome["seed"], outcome["number"], outcome.get("shapes", 8), outcome["run"], _asked(outcome)


def _asked(outcome: dict[str, Any]) -> str:
    """The flags of a trial's command that say what is drawn at all, with a space before them."""
    found = re.search(r" --(faults|phases|runs) .*", outcome.get("command", ""))
    return found[0] if found else ""


def _is_mended(wrong: dict[str, Any], again: dict[str, Any]) -> bool:
    """Whether the fault after which a trial went wrong struck again in the same phase, and all went right."""
    fault, phase = wrong["faults"][-1]["fault"], wrong["faults"][-1].get("phase")
    struck = [each for each in again["faults"] if each["hit"] and each["fault"] == fault and each.get("phase") == phase]
    return bool(struck) and not again["wrong"]


def _command(outcome: dict[str, Any]) -> str:
    """The command that made a trial; of old outcomes, one that makes it again."""
    again = f"python -m tests.campaign --seed={outcome['seed']} --shapes={outcome.get('shapes', 8)}"
    return outcome.get("command", again)


def _load(outcome: dict[str, Any]) -> str:
    """What else the machine had to do during a trial, for the reader of what was too slow."""
    return f" (load average of the machine: {outcome['load']:g})" if "load" in outcome else ""


def _moved(outcome: dict[str, Any]) -> bool:
    """Whether a run went on with other devices, of which the records alone are compared (`ends.differs`)."""
    return "devices" in outcome or any(fault["fault"] == "other devices" for fault in outcome["faults"])


def _earlier(earlier: Sequence[dict[str, Any]], struck: int, trials: int) -> Iterable[str]:
    """The sum of all, where there are counts of earlier pages."""
    if earlier:
        number = struck + sum(each["struck"] for each in earlier)
        trials += sum(each["trials"] for each in earlier)
        yield f"All campaigns so far: {number} faults in {trials} runs and sweeps, which the tables hold. The newest:"
        yield ""


def _table(outcomes: Iterable[dict[str, Any]], earlier: Iterable[dict[str, Any]]) -> Iterable[str]:
    """One line for each kind of fault; a wrong end counts for the last fault of its run."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for outcome in outcomes:
        for fault in outcome["faults"]:
            what = "too late" if not fault["hit"] else "refused" if fault["refused"] else "went on"
            counts[fault["fault"]][what] += 1
        counts[outcome["faults"][-1]["fault"]]["wrong"] += bool(outcome["wrong"])
    for each in earlier:
        for kind, found in each["faults"].items():
            counts[kind] += collections.Counter(
                dict(zip(("too late", "went on", "refused", "wrong"), found, strict=True))
            )
    yield f"| {' | '.join(HEAD)} |"
    yield "|---|" + "---:|" * (len(HEAD) - 1)
    for kind in sorted({*counts, *faults.FAULTS, *sweeps.FAULTS}):
        of = counts[kind]
        cells = (of["went on"] + of["refused"], of["too late"], of["went on"], of["refused"], of["wrong"])
        yield f"| {kind} | {' | '.join(map(str, cells))} |"


def _phases(struck: Iterable[dict[str, Any]], earlier: Iterable[dict[str, Any]]) -> Iterable[str]:
    """How many faults struck in each phase of a run."""
    counts = collections.Counter(fault.get("phase") for fault in struck)
    for each in earlier:
        counts.update(each["phases"])
    yield f"| {' | '.join(['phase', *PHASES])} |"
    yield "|---|" + "---:|" * len(PHASES)
    yield f"| faults | {' | '.join(str(counts[phase]) for phase in PHASES)} |"


def _shapes(outcomes: Sequence[dict[str, Any]]) -> Iterable[str]:
    """How many faults struck each shape of a run or sweep, also those that none struck yet."""
    counts: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        words = outcome["run"].replace(" in each of ", ", ").split(", ")
        words += ["each start a new Python"] * outcome.get("fresh", False) + [MOVED] * ("devices" in outcome)
        counts.update({word: sum(fault["hit"] for fault in outcome["faults"]) for word in set(words)})
    devices = [f"{number} device{'s' * (number > 1)}" for number in (1, 2, 4, 8)]
    networks = [*NETWORKS, *WITH_SOURCE, *SOURCES, "resident", "stream", *devices, "2 processes", *OPTIONS]
    shapes = [*networks, "fine-tuned", "each start a new Python", MOVED, *sweeps.STORES, *sweeps.TOGETHER]
    yield (
        "Faults by the shape of the run or sweep that they struck, without earlier campaigns: "
        + ", ".join(f"{shape} {counts[shape]}" for shape in shapes)
        + "."
    )


def _times(outcomes: Sequence[dict[str, Any]], earlier: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Steps repeated, and seconds of stops and restarts."""
    starts = [start for outcome in outcomes for start in (*outcome["faults"], *outcome.get("restarts", []))]
    stops = [start["seconds"] for start in starts if start.get("fault") == "SIGTERM" and 75 in start["codes"]]
    yield "| | runs | median | most | limit |"
    yield "|---|---:|---:|---:|---:|"
    repeated = {
        damaged: [
            start["repeated"]
            for start in starts
            if "repeated" in start and not start.get("refused") and (start.get("fault") == DAMAGED) == damaged
        ]
        for damaged in (False, True)
    }
    for what, values, limit in (
        ("steps of work repeated by a restart", repeated[False], f"{2 * EVERY}"),
        ("the same after a file was damaged or lost, from the checkpoint before it", repeated[True], ""),
        ("seconds from SIGTERM to the exit", stops, f"{speed.STOP:g}"),
        (
            "seconds from a first start to its first step",
            [start["ready first"] for start in starts if "ready first" in start],
            "",
        ),
        ("seconds from a restart to its first step", [start["ready"] for start in starts if "ready" in start], ""),
        ("seconds of a warm start of the same runs", [each["warm"] for each in outcomes if each.get("warm")], ""),
        (
            "slowest restart of a run after a signal, in warm starts of that run",
            [round(speed.slowest_restart(each) / each["warm"], 2) for each in outcomes if each.get("warm")],
            f"{speed.TIMES:g}",
        ),
    ):
        if values:
            yield f"| {what} | {len(values)} | {statistics.median(values):g} | {max(values):g} | {limit} |"
    for each in earlier:
        for what, number, median, most in each["times"]:
            yield f"| {what} (earlier) | {number} | {median:g} | {most:g} | |"
