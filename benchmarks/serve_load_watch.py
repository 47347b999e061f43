"""Measures the processor time and the memory of a server while it gets requests."""

import contextlib
import os
import pathlib
import threading


class Processors:
    """Measures the share of the processors that the server takes, and that of other programs (Linux only)."""

    def __init__(self, process: int) -> None:
        self._process = process
        self.used: dict[str, float] = {}

    def __enter__(self) -> "Processors":
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        server, ours, busy, whole = (now - then for now, then in zip(self._now(), self._before, strict=True))
        self.used = {"server_seconds": server, "other_work": max(0.0, busy - server - ours) / whole if whole else 0.0}

    def _now(self) -> tuple[float, ...]:
        """The seconds of the server, of this command and its clients, of all programs, and of all processors."""
        try:
            tick = os.sysconf("SC_CLK_TCK")
            fields = pathlib.Path(f"/proc/{self._process}/stat").read_text().rpartition(")")[2].split()
            whole = [int(each) / tick for each in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        except OSError:
            return (0.0,) * 4
        own = os.times()
        server = (int(fields[11]) + int(fields[12])) / tick
        return server, sum(own[:2]) + _ended_children(own), sum(whole) - whole[3] - whole[4], sum(whole)


def _ended_children(times: os.times_result) -> float:
    return times.children_user + times.children_system


class Watcher:
    """Watches the memory of a process until it is stopped; keeps the largest value."""

    def __init__(self, process: int) -> None:
        self._process, self._done, self.most = process, threading.Event(), 0
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.1):
            self.most = max(self.most, resident(self._process))


def resident(process: int) -> int:
    """The bytes of memory that a process has (Linux only); 0 where this is unknown."""
    with contextlib.suppress(OSError):
        text = pathlib.Path(f"/proc/{process}/status").read_text()
        return 1024 * int(text.partition("VmRSS:")[2].split()[0])
    return 0
