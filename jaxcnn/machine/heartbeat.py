"""Communication between the processes of a run: they detect lost processes, exchange values and report why they end.

A thread of each process watches its connection to process 0. A killed process closes its own at once; a stopped one, or
one whose host or link is down, falls silent. The observer tells the others. Each prints its step and the cause, and
exits by `os._exit`: a collective, or an orderly exit, would wait for ever.
"""

import contextlib
import dataclasses
import os
import pathlib
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import Any, NoReturn

from jaxcnn.machine import messages

RESTARTABLE = 75  # exit code: the run is intact, the same command continues it (EX_TEMPFAIL of sysexits.h)
BUG = 1
OF_COLLECTIVES = ("gloo", "nccl", "collective", "coordination", "barrier", "connection", "deadline", "unavailable")
_GRACE_SECONDS = 4.0  # time to receive a cause, and for process 0 to see the others exit first


@dataclasses.dataclass
class Standing:
    """The progress of a run, printed with the cause in the last message: steps started, and the workdir if known."""

    step: int = 0
    folder: pathlib.Path | None = None


class Heartbeat:
    """The connections of one process, and the thread that watches them.

    Args:
      process: number of this process.
      roster: the card that each process sent at the meeting; only `host` is used.
      links: open connections, keyed by process; process 0 has one to every other process, the others one to it.
      heartbeat_seconds: seconds of silence after which a process counts as lost.
    """

    def __init__(
        self, process: int, roster: list[dict[str, Any]], links: dict[int, socket.socket], heartbeat_seconds: float
    ) -> None:
        self.process, self.roster = process, roster
        self.host: str = roster[process]["host"]
        self.standing: Callable[[], Standing] = Standing  # called for the last message
        self._links = links
        self._silence = heartbeat_seconds
        self._lock = threading.Condition()
        self._round = 0
        self._values: dict[int, dict[int, Any]] = {}
        self._gathered: dict[int, list[Any]] = {}
        self._ended_well = False
        self._leaving = threading.Lock()
        self._sending = {other: threading.Lock() for other in links}
        for link in links.values():
            link.settimeout(heartbeat_seconds)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        """Start the thread that watches the connections."""
        threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()

    def start_gather(self, value: Any) -> int:
        """Send a JSON value to all processes; return the number to pass to `gathered`. All must make the same calls."""
        with self._lock:
            self._round += 1
            number = self._round
        self._take_value(self.process, number, value)
        if self.process:
            self._send(0, {"value": value, "round": number})
        return number

    def gathered(self, number: int) -> list[Any]:
        """The values of all processes, in process order; waits until all have arrived."""
        with self._lock:
            while number not in self._gathered:
                self._lock.wait()
            return self._gathered.pop(number)

    def end(self) -> None:
        """Tell the others that the run has ended; called when all processes have reached the end."""
        self._ended_well = True
        for other in list(self._links):
            self._send(other, {"done": True})

    def leave(self, cause: str, code: int) -> NoReturn:
        """Tell the others why this process ends, print the last message, and exit. Any thread may call it."""
        if not self._leaving.acquire(blocking=False):
            time.sleep(3600)  # another thread is doing this, and ends the process
        self._say(self._last_word(cause, code))
        for other in list(self._links):
            self._send(other, {"leaving": self.process, "cause": cause, "code": code, "passed_on": False})
        if self.process == 0:  # JAX aborts processes that lose process 0, so it exits last
            deadline = time.monotonic() + _GRACE_SECONDS
            while time.monotonic() < deadline and not all(map(_is_closed, list(self._links.values()))):
                time.sleep(0.05)
        os._exit(code)

    def wait_for_cause(self) -> None:
        """Give the watching thread time to end this process with a better cause than the caller knows."""
        time.sleep(_GRACE_SECONDS)

    def _last_word(self, cause: str, code: int) -> str:
        standing = Standing()
        with contextlib.suppress(Exception):  # of the caller's: the last word is said whatever it knows
            standing = self.standing()
        words = [
            f"process {self.process} of {len(self.roster)} on {self.host} stopped at step {standing.step}: {cause}"
        ]
        if standing.folder is not None:
            newest = _within(2.0, lambda: newest_checkpoint(standing.folder)) or "there is no checkpoint"
            words.append(f"{newest} in {standing.folder}")
        if code == RESTARTABLE:
            words.append("the same command continues the run")
        return f"jaxcnn: {'; '.join(words)} (exit code {code})"

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # not print: another thread may hold the lock of a buffered stream
            os.write(2, f"\n{line}\n".encode(errors="backslashreplace"))

    def _name(self, process: int) -> str:
        return f"process {process} on {self.roster[process]['host']}"

    def _watch(self) -> None:
        """Watch until the process ends. A bug in the watching also ends it, since an unwatched run may hang."""
        try:
            self._hear_and_beat()
        except BaseException as error:
            traceback.print_exception(error)
            self.leave(f"its heartbeat broke: {type(error).__name__}: {error}", BUG)

    def _hear_and_beat(self) -> None:
        """Receive from the other processes, and send them heartbeats."""
        heard = dict.fromkeys(self._links, time.monotonic())
        pause = min(self._silence / 5, 2.0)
        rest = dict.fromkeys(self._links, b"")
        beaten = looked = time.monotonic()
        while self._links:
            ready = connection.wait(list(self._links.values()), pause)  # select is limited to 1024 descriptors
            now = time.monotonic()
            if now - looked > self._silence / 2:  # this process was stopped, so the others were not silent
                heard = dict.fromkeys(self._links, now)
            looked = now
            for other, link in list(self._links.items()):
                if link in ready:
                    heard[other] = now
                    rest[other] = self._read(other, link, rest[other])
                elif now - heard[other] > self._silence and not self._ended_well:
                    self._lost(other, f"silent for {self._silence:g} s: its host or link is down, or it was stopped")
            if now - beaten >= pause:
                beaten = now
                for other in list(self._links):
                    self._send(other, {})

    def _read(self, other: int, link: socket.socket, rest: bytes) -> bytes:
        """Receive messages of a process; return the beginning of an incomplete message."""
        try:
            data = link.recv(2**16)
        except OSError:
            data = b""
        if not data:
            self._links.pop(other, None)
            if not self._ended_well:
                self._lost(other, "gone: it was killed, or it crashed")
            return b""
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if (message := messages.understood(line)) is None:
                self._lost(other, "not understood: it sends something that is not a message of this run")
            else:
                self._take(other, message)
        if len(rest) > messages.LONGEST:
            self._lost(other, "not understood: it sends an endless message")
        return rest

    def _take(self, other: int, message: dict[str, Any]) -> None:
        if "round" in message:
            if self.process == 0:
                self._take_value(other, message["round"], message["value"])
            else:
                self._publish(message["round"], message["values"])
        elif "leaving" in message:
            cause, code = message["cause"], message["code"]
            if not message["passed_on"]:
                cause = f"{self._name(other)} stopped: {cause}"
            self._pass_on(cause, code, other)
            self.leave(cause, code)
        elif "done" in message:
            self._ended_well = True

    def _lost(self, other: int, how: str) -> None:
        cause = f"{self._name(other)} is {how}"
        self._links.pop(other, None)
        self._pass_on(cause, RESTARTABLE, other)
        self.leave(cause, RESTARTABLE)

    def _pass_on(self, cause: str, code: int, about: int) -> None:
        """If this is process 0, tell all others, which are connected only with it."""
        if self.process == 0:
            for each in list(self._links):
                if each != about:
                    self._send(each, {"leaving": about, "cause": cause, "code": code, "passed_on": True})

    def _take_value(self, process: int, number: int, value: Any) -> None:
        if self.process:
            return
        with self._lock:
            values = self._values.setdefault(number, {})
            values[process] = value
            if len(values) < len(self.roster):
                return
            ordered = [self._values[number][n] for n in range(len(self.roster))]
            del self._values[number]
        for other in list(self._links):
            self._send(other, {"round": number, "values": ordered})
        self._publish(number, ordered)

    def _publish(self, number: int, values: list[Any]) -> None:
        with self._lock:
            self._gathered[number] = values
            self._lock.notify_all()

    def _send(self, other: int, message: Any) -> None:
        link = self._links.get(other)
        if link is None:
            return
        with self._sending[other]:
            messages.send(link, message)


class Cluster:
    """The processes of a run, including this one; without a heartbeat it is alone, and nothing is sent."""

    def __init__(self, heartbeat: Heartbeat | None = None) -> None:
        self.heartbeat = heartbeat
        self.process = heartbeat.process if heartbeat else 0
        self.processes = len(heartbeat.roster) if heartbeat else 1
        self.hosts = [card["host"] for card in heartbeat.roster] if heartbeat else []

    def tell_with(self, standing: Callable[[], Standing]) -> None:
        """Call `standing`, from any thread, for the progress of the run if this process must end."""
        if self.heartbeat is not None:
            self.heartbeat.standing = standing

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.heartbeat is None

    @property
    def first(self) -> bool:
        """Whether this is process 0, the only one that writes logs and records."""
        return self.process == 0

    @property
    def first_on_host(self) -> bool:
        """Whether this is the lowest-numbered process on its host."""
        return self.alone or self.hosts.index(self.hosts[self.process]) == self.process

    def start_gather(self, value: Any) -> Callable[[], list[Any]]:
        """Send a JSON value to all processes; the returned function waits for all values, in process order."""
        if self.heartbeat is None:
            return lambda: [value]
        heartbeat, number = self.heartbeat, self.heartbeat.start_gather(value)
        return lambda: heartbeat.gathered(number)

    def gather(self, value: Any = None) -> list[Any]:
        """The values of all processes, in process order. It is also a barrier: all must call it."""
        return self.start_gather(value)()

    def of_first(self, make: Callable[[], Any]) -> Any:
        """The JSON value that process 0 computes with `make` while the others wait."""
        return self.gather(make() if self.first else None)[0]

    @contextlib.contextmanager
    def one_per_host_first(self) -> Iterator[None]:
        """Run the block in one process of each host while the others wait; then run it in the others."""
        if not self.first_on_host:
            self.gather()
        yield
        if self.first_on_host:
            self.gather()

    def end(self) -> None:
        """Wait until all processes have reached the end, and tell them that the run has ended."""
        if self.heartbeat is not None:
            self.gather()
            self.heartbeat.end()

    def fail(self, error: BaseException, code: int) -> None:
        """Report an error and exit; returns only if this process is alone.

        A collective usually fails because another process has ended: the watching thread gets time to report why.
        """
        heartbeat = self.heartbeat
        if heartbeat is None:
            return
        lines = str(error).strip().splitlines() or [""]
        cause = f"{type(error).__name__}: {lines[0][:300]}" if code in (BUG, RESTARTABLE) else "\n  ".join(lines)
        if of_a_collective(error):
            heartbeat.wait_for_cause()
            code = RESTARTABLE
        elif code == BUG:
            traceback.print_exception(error)
        heartbeat.leave(cause, code)


def newest_checkpoint(folder: pathlib.Path | None) -> str | None:
    """A text that names the newest finished checkpoint of a workdir, from folder names; None if there is none."""
    with contextlib.suppress(OSError):
        steps = [int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit()]  # type: ignore[operator]
        return f"the newest checkpoint is that of step {max(steps)}" if steps else None
    return None


def of_a_collective(error: BaseException) -> bool:
    """Whether an error of Gloo, NCCL or JAX's service probably comes from the loss of another process."""
    known = type(error).__name__ in ("ValueError", "RuntimeError", "JaxRuntimeError", "XlaRuntimeError")
    return known and any(word in str(error).lower() for word in OF_COLLECTIVES)


def _is_closed(link: socket.socket) -> bool:
    """Whether the other end of a connection is closed; reads and drops pending data."""
    try:
        link.setblocking(False)
        while link.recv(2**16):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def _within(seconds: float, ask: Callable[[], Any]) -> Any:
    """The result of `ask`, or None if it takes longer, for example if a file server is down."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None
