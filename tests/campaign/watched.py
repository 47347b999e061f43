"""The processes of one start, watched: what they said and when, and in which phase they are."""

import json
import pathlib
import random
import signal
import subprocess
import threading
import time
from collections.abc import Sequence

from tests.campaign.draws import LOGGED, STEPS

LIMIT = 300.0  # seconds after which a start hangs

# What each phase is told by: a word of the output, or a sight of the workdir (below).
WORDS = {"start": "", "data": "jaxcnn: reading", "compile": "loader ", "first step": "compiled in"}
SIGHTS = ("train", "validate", "save", "final evaluation", "report")
PHASES = (*WORDS, *SIGHTS)
# Seconds of each phase, within which a moment is drawn.
LENGTHS = {"start": 1.0, "data": 0.3, "compile": 2.0, "first step": 0.5, "train": 0.3,
           "validate": 0.1, "save": 0.02, "final evaluation": 0.3, "report": 0.05}  # fmt: skip


class Watched:
    """Processes with their outputs, which are read all the time.

    Args:
      processes: processes of one start.
      workdir: workdir of the run.
      validations: the steps after which it is validated.
    """

    def __init__(
        self, processes: list[subprocess.Popen], workdir: pathlib.Path, validations: Sequence[int] = ()
    ) -> None:
        self.processes, self.workdir, self._validations = processes, workdir, validations
        self.began = time.monotonic()
        self.before = logged(workdir)
        self._lines: list[list[tuple[float, str]]] = [[] for _ in processes]
        self._readers = [
            threading.Thread(target=self._read, args=(process, lines), daemon=True)
            for process, lines in zip(processes, self._lines, strict=True)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, process: subprocess.Popen, lines: list[tuple[float, str]]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic() - self.began, line))

    def output(self) -> str:
        """What all of them said."""
        return "".join(line for lines in self._lines for _, line in lines)

    def seconds_to(self, words: str) -> float | None:
        """When the first process said it; None: never."""
        return next((when for when, line in self._lines[0] if words in line), None)

    def runs(self) -> bool:
        """Whether one of them still runs."""
        return any(process.poll() is None for process in self.processes)

    def sees(self, phase: str, records: int) -> bool:
        """Whether the phase has come; for train, that many records were written by this start."""
        if phase in WORDS:
            return not WORDS[phase] or self.seconds_to(WORDS[phase]) is not None
        if phase == "save":
            return any(self.workdir.glob("checkpoints/*tmp*"))
        if phase == "report":
            return (self.workdir / "test.json").exists()
        seen = recorded(self.workdir)
        if phase == "validate":
            return self._validates(seen)
        if phase == "final evaluation":
            return seen[-1:] == [("val" if STEPS in self._validations else "train", STEPS)]
        return len(seen) >= len(self.before) + records

    def _validates(self, seen: list[tuple[str, int]]) -> bool:
        """Whether the last record of training before a validation is there, but not that of the validation."""
        validated = max((step for kind, step in seen if kind == "val"), default=0)
        due = next((step for step in self._validations if step > validated), None)
        return due is not None and seen[-1:] == [("train", due - due % LOGGED)]

    def wait_for(self, phase: str, generator: random.Random) -> bool:
        """Wait for a random moment of a phase; return whether the run is still under way."""
        records, rest = generator.randint(1, 6), generator.random() * LENGTHS[phase]
        while self.runs() and not self.sees(phase, records):
            if time.monotonic() - self.began > LIMIT:
                return True
            time.sleep(0.002)
        time.sleep(rest)
        return self.runs()

    def send(self, number: int, whom: int | None = None) -> None:
        """Send a signal to one process, or to all."""
        for process in self.processes if whom is None else [self.processes[whom]]:
            if process.poll() is None:
                process.send_signal(number)

    def end(self) -> tuple[list[int], str, float]:
        """Wait for the end; exit codes, output, seconds that it took. What hangs is killed, with code 124."""
        began, hung = time.monotonic(), False
        for process in self.processes:
            try:
                process.wait(max(1.0, LIMIT - (time.monotonic() - began)))
            except subprocess.TimeoutExpired:
                hung = True
                self.send(signal.SIGKILL)
        for process, reader in zip(self.processes, self._readers, strict=True):
            process.wait()
            reader.join(10)
        took = time.monotonic() - began
        return [124 if hung else process.returncode for process in self.processes], self.output(), took


def logged(workdir: pathlib.Path) -> list[int]:
    """The steps of the whole lines of `metrics.jsonl`."""
    return [step for _, step in recorded(workdir)]


def recorded(workdir: pathlib.Path) -> list[tuple[str, int]]:
    """The kinds and steps of the whole lines of `metrics.jsonl`."""
    try:
        lines = (workdir / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        return [(found.get("kind", ""), found["step"]) for found in map(json.loads, lines)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
