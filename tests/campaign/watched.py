"""The processes of one start, watched: what they said and when, and in which phase they are."""

import json
import pathlib
import random
import signal
import subprocess
import threading
import time

from tests.campaign.draws import STEPS

LIMIT = 300.0  # seconds after which a start hangs

# What each phase is told by: a word of the output, or a sight of the workdir (below).
WORDS = {"start": "", "data": "jaxcnn: reading", "compile": "loader ", "first step": "compiled in"}
SIGHTS = ("train", "save", "final evaluation", "report")
PHASES = (*WORDS, *SIGHTS)
# Seconds of each phase, within which a moment is drawn.
LENGTHS = {"start": 1.0, "data": 0.3, "compile": 2.0, "first step": 0.5, "train": 0.3, "save": 0.02,
           "final evaluation": 0.3, "report": 0.05}  # fmt: skip


class Watched:
    """Processes with their outputs, which are read all the time."""

    def __init__(self, processes: list[subprocess.Popen], workdir: pathlib.Path) -> None:
        self.processes, self.workdir = processes, workdir
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
        steps = logged(self.workdir)
        if phase == "final evaluation":
            return steps[-1:] == [STEPS]
        return len(steps) >= len(self.before) + records

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
    try:
        lines = (workdir / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        return [json.loads(line)["step"] for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        return []
