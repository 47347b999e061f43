"""Whole runs in separate processes, as a user starts them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from tests import warm_start

ROOT = pathlib.Path(__file__).parent.parent
# For runs whose tests check no numbers: compiling is most of their time.
UNOPTIMISED = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
OF_THE_CACHE = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
DIGITS = ("--config=configs/quickstart.py", "--config.run.tensorboard=False", "--config.run.curves=False")


def start(
    *flags: str,
    module: str = "jaxcnn.main",
    devices: int = 1,
    fresh: bool = False,
    stderr: int = subprocess.STDOUT,
    **environment: str,
) -> subprocess.Popen:
    """Start `python -m jaxcnn.main`, or another module, with flags.

    Unless `fresh`, it is forked from a process that has imported jax (`tests.warm_start`).
    """
    variables = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONUNBUFFERED": "1"} | environment
    command = [sys.executable, "-m", module, *flags]
    forked = not fresh and warm_start.can_start(variables)
    if forked:
        variables |= {"JAXCNN_HUGE_PAGES": "off"}  # the command would replace the process, and import everything again
    return (warm_start.Popen if forked else subprocess.Popen)(
        command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=stderr, text=True
    )


def own_caches(folder: pathlib.Path, **environment: str) -> dict[str, str]:
    """Environment variables for a process with all its caches in a folder, also JAX's compiled programs."""
    variables = {name: value for name, value in os.environ.items() if name not in OF_THE_CACHE}
    return variables | {"JAXCNN_CACHE": str(folder)} | environment


def python(*arguments: str, env: dict[str, str], seconds: float = 240) -> tuple[int, str, str]:
    """Exit code, output and errors of Python with these arguments and this whole environment; forked as in `start`."""
    variables = env | {"PYTHONUNBUFFERED": "1"}
    forked = warm_start.can_start(variables)
    if forked:
        variables |= {"JAXCNN_HUGE_PAGES": "off"}
    process = (warm_start.Popen if forked else subprocess.Popen)(
        [sys.executable, *arguments], cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output, errors


def run(*flags: str, seconds: float = 240, **options) -> tuple[int, str]:
    """Exit code and output of a command."""
    process = start(*flags, **options)
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


def wait_for(process: subprocess.Popen, words: str, seconds: float = 120) -> str:
    """Read the output up to a line that contains `words`; return it."""
    seen = ""
    deadline = time.monotonic() + seconds
    assert process.stdout is not None
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        seen += line
        if words in line:
            return seen
        if not line and process.poll() is not None:
            break
    raise AssertionError(f"{words!r} did not come in:\n{seen}")


def stop(process: subprocess.Popen, number: int, seconds: float = 60) -> tuple[int, str, float]:
    """Send a signal; return exit code, remaining output, and the seconds it took to end."""
    began = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output, time.monotonic() - began


def kill(process: subprocess.Popen) -> None:
    """Send SIGKILL, and wait for the end."""
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)


def records(workdir: pathlib.Path) -> list[dict]:
    """The records of `metrics.jsonl` without their timings."""
    timings = ("images_per_second", "train_seconds")
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timings} for line in lines]


def losses(workdir: pathlib.Path) -> list[float]:
    """The losses of the training records of a run."""
    return [record["loss"] for record in records(workdir) if record["kind"] == "train"]


def seals(workdir: pathlib.Path) -> dict:
    """Shape, dtype and CRC-32 of every array of the newest checkpoint."""
    newest = max((p for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
    record = json.loads((newest / "record" / "metadata").read_text())
    return {"step": record["step"], **record["arrays"]}


def kept(workdir: pathlib.Path) -> dict:
    """Everything in a workdir that no kill may change, so without times and facts of this start.

    That is the checkpoints, by the seals of their arrays and their accuracies; the log; and each JSON file, but for
    those that were found damaged and set aside.
    """
    own = ("environment", "trial")
    files = [path for path in workdir.glob("*.json") if path.stem not in own and "-damaged" not in path.stem]
    told = {path.name: json.loads(path.read_text()) for path in files}
    # The checksum covers the times as well; the operations and memory of a step are counted with those of its loader.
    changing = ("seconds", "per_second", "per_device", "per_image", "bytes", "utilisation", "starts", "crc32")
    if "summary.json" in told:
        told["summary.json"] = {k: v for k, v in told["summary.json"].items() if not k.endswith(changing)}
    there = sorted((workdir / "checkpoints").iterdir(), key=lambda p: (len(p.name), p.name))
    checkpoints = {path.name: None if path.name.startswith("damaged-") else _sealed(path) for path in there}
    return {"checkpoints": checkpoints, "records": records(workdir), **told}


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Where two trees of `kept` differ, and by what: `checkpoint 14, 0, params/conv1/kernel, crc32: 17 not 23`."""
    keys: Any = ()
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys(), key=str)
        one, other = ({key: tree.get(key, "nothing") for key in keys} for tree in (one, other))
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        keys = range(len(one))
    elif one != other:
        return [f"{place}: {str(one)[:200]} not {str(other)[:200]}"]
    places = {key: f"{place}, {key}" if place else str(key) for key in keys}
    return [line for key, within in places.items() for line in differences(one[key], other[key], within)]


def _sealed(checkpoint: pathlib.Path) -> tuple[dict, float | None]:
    """The seals of the arrays of a checkpoint, and its validation accuracy."""
    record = json.loads((checkpoint / "record" / "metadata").read_text())
    return record["arrays"], record["score"]
