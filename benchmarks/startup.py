"""Time to start: imports, --help, and from the command to the first step, cold and with a warm compile cache.

    python -m benchmarks.startup [--repeats=3] [--out=startup.json] -- --config=configs/vgg16_cifar10.py [flags]

Everything is measured from outside, in fresh processes: a start counts from the moment its process is made to the
moment the line of its first step arrives, and is killed then. Cold and warm starts take turns, and each pair has a new
folder for compiled programs, which only its warm start finds filled. Decoded images are prepared once, before, as they
are kept between runs. What follows `--` is handed to `jaxcnn.main`.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
MEASURES = {
    "import": "`import jaxcnn`",
    "import_training": "`import jaxcnn.train.loop`, all that training needs",
    "help": "`python -m jaxcnn.main --help`",
    "cold": "command to first step, no compiled programs",
    "warm": "command to first step, compiled programs kept",
    "warm_without_step": "the same, less a step",
}
FIRST_STEP = re.compile(r"^step 1/")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a Markdown table, write JSON where asked; return what the JSON holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--out", type=pathlib.Path, help="JSON file to write")
    parser.add_argument("flags", nargs="*", help="of jaxcnn.main, after --")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    figures = measure(options.flags or ["--config=configs/vgg16_cifar10.py"], options.repeats)
    print(table(figures))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


def measure(flags: list[str], repeats: int) -> dict[str, Any]:
    """Seconds of every measure, by name, with what they were measured on."""
    seconds: dict[str, list[float]] = {name: [] for name in MEASURES}
    with tempfile.TemporaryDirectory() as folder:
        first_step(flags, pathlib.Path(folder), "prepare")  # reads the files of Python and of the data once
        for number in range(repeats):
            seconds["import"].append(_timed("-c", "import jaxcnn"))
            seconds["import_training"].append(_timed("-c", "import jaxcnn.train.loop"))
            seconds["help"].append(_timed("-m", "jaxcnn.main", "--help"))
            seconds["cold"].append(first_step(flags, pathlib.Path(folder), f"cache-{number}")[0])
            whole, step = first_step(flags, pathlib.Path(folder), f"cache-{number}")
            seconds["warm"].append(whole)
            seconds["warm_without_step"].append(whole - step)
    return {
        "flags": flags,
        "repeats": repeats,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "seconds": seconds,
        "median": {name: statistics.median(values) for name, values in seconds.items()},
    }


def first_step(flags: list[str], folder: pathlib.Path, cache: str) -> tuple[float, float]:
    """Seconds from the command to its first step, with the compiled programs of folder/cache; and of one more step.

    Raises:
      RuntimeError: the run ended before its second step.
    """
    workdir = tempfile.mkdtemp(dir=folder)
    overrides = ["--config.run.steps=1000000", "--config.run.log_every_steps=1", "--config.run.tensorboard=False"]
    environment = {"JAX_COMPILATION_CACHE_DIR": str(folder / cache), "PYTHONUNBUFFERED": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxcnn.main", *flags, *overrides, f"--workdir={workdir}"],
        cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if FIRST_STEP.match(line):
                whole = time.perf_counter() - began
                return whole, _second_step(pathlib.Path(workdir) / "metrics.jsonl", process)
    finally:
        process.kill()
        process.communicate()
    raise RuntimeError("the run ended before its first step:\n" + "".join(said))


def _second_step(metrics: pathlib.Path, process: subprocess.Popen[str]) -> float:
    """Seconds of the second step, once the log has it."""
    while process.poll() is None:
        records = metrics.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last is not yet whole
        if len(records) > 1:
            first, second = (json.loads(record)["train_seconds"] for record in records[:2])
            return second - first
        time.sleep(0.02)
    raise RuntimeError("the run ended before its second step")


def _timed(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown: median and range of each measure."""
    rows = [f"| seconds, n = {figures['repeats']} | median | least | most |", "|---|---|---|---|"]
    for name, meaning in MEASURES.items():
        values = figures["seconds"][name]
        rows.append(f"| {meaning} | {figures['median'][name]:.2f} | {min(values):.2f} | {max(values):.2f} |")
    return "\n".join([*rows, "", f"`jaxcnn.main {' '.join(figures['flags'])}`, {figures['cores']} cores."])


if __name__ == "__main__":
    main()
