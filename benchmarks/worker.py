"""The parent's side of worker processes: start them, send requests, and stop all but one of them."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import Any

from jaxcnn.config import UserError
from jaxcnn.machine.malloc import HUGE_PAGES, WHOLE_PLACES

ROOT = pathlib.Path(__file__).parents[1]
SIGKILL = -9


class WorkerFailed(UserError):
    """Raised when a worker could not answer a request; the message is one line.

    Attributes:
      missing: module that its interpreter lacks, if this is the cause.
    """

    def __init__(self, message: str, missing: str | None = None) -> None:
        super().__init__(message)
        self.missing = missing


class Worker:
    """A process that serves one peer (`benchmarks.serve`). It is stopped (SIGSTOP) except while it answers a request.

    So its idle threads, which spin for the next OpenMP loop or fill a queue of batches, take no time from the peer that
    is measured, and no settings of the peers have to be changed.

    Attributes:
      name: the name in messages.
      facts: the facts of the peer.
    """

    def __init__(self, name: str, python: str, module: str, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        try:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.serve", module],
                env=os.environ | {"PYTHONPATH": path} | (environment or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                start_new_session=True,  # so that signals also reach its children
            )
        except OSError as error:
            raise WorkerFailed(f"{name}: {python} does not start: {error.strerror}") from error
        try:
            self.facts = self.ask("hello")
        except BaseException:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
          WorkerFailed: the request failed, or the process ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._signal(signal.SIGCONT)
        line = ""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(f"{self.name}: {self._how_it_ended()}")
        self._signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(f"{self.name}: {answer['error']}", answer["missing"])
        return answer["ok"]

    def build(self, spec: dict[str, Any]) -> float:
        """Build and warm up the task of a spec; return the seconds."""
        return self.ask("build", spec=spec)["seconds"]

    def run(self, steps: int) -> float:
        """Run `steps` steps; return the seconds."""
        return self.ask("run", steps=steps)["seconds"]

    def steps_for(self, seconds: float) -> int:
        """The number of steps that take about `seconds`, at least 1."""
        steps, spent = 1, self.run(1)
        while spent < seconds / 10:
            steps *= 2
            spent = self.run(steps)
        return max(1, round(seconds * steps / spent))

    def close(self) -> None:
        """End the process and its children."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        lines = [line for line in self._log.read().splitlines() if line.strip()]
        last = f": {lines[-1].strip()}" if lines else ""
        if code == SIGKILL:
            return f"it was killed, perhaps because of too little memory{last}"
        return f"it ended with exit code {code}{last}"


def jaxcnn_environment(device: str) -> dict[str, str]:
    """Variables for one device, without preallocation of GPU memory, because a peer shares the GPU."""
    platforms = {"cpu": "cpu", "gpu": "cuda"}.get(device)
    environment = {"JAX_NUM_CPU_DEVICES": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return environment | ({"JAX_PLATFORMS": platforms} if platforms else {})


def start_torch(python: str, module: str, device: str, huge_pages: bool = False) -> Worker:
    """Start a worker of PyTorch; it sees no GPU if `device` is cpu.

    It does not inherit the settings of the C library that jaxcnn's commands make, but `huge_pages` requests huge pages.

    Raises:
      UserError: PyTorch is not installed for that interpreter.
    """
    try:
        return Worker("PyTorch", python, module, _torch_environment(device, huge_pages))
    except WorkerFailed as error:
        if error.missing is None:
            raise
        where = "this Python" if python == sys.executable else f"--torch_python={python}"
        raise UserError(
            f"{where} has no {error.missing}; pip install -e .[bench], choose another interpreter with --torch_python, "
            "or measure jaxcnn alone with --peers=jaxcnn"
        ) from error


def _torch_environment(device: str, huge_pages: bool) -> dict[str, str]:
    inherited = filter(None, os.environ.get("GLIBC_TUNABLES", "").split(":"))
    ours = {f"{name}={value}" for name, value in WHOLE_PLACES.items()}
    tunables = [each for each in inherited if each not in ours and each.partition("=")[0] not in HUGE_PAGES]
    if huge_pages:
        tunables += [f"{name}={value}" for name, value in HUGE_PAGES.items()]
    environment = {"GLIBC_TUNABLES": ":".join(tunables)}
    return environment | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})


def check_devices(devices: list[str], facts: dict[str, dict[str, Any]]) -> None:
    """Refuse to measure a GPU that one of the peers does not see.

    Raises:
      UserError: a peer does not see the GPU.
    """
    blind = [peer for peer, told in facts.items() if told["device_kind"] != "gpu"]
    if "gpu" in devices and blind:
        raise UserError(f"a GPU is to be measured, but {' and '.join(blind)} finds none; check its installation")
