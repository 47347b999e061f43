"""Measure start-up times: imports, --help, and from the command to the first step, with a cold and a warm cache.

    python -m benchmarks.startup [--repeats=3] [--out=results/benchmarks] -- --config=configs/vgg16_cifar10.py [flags]

All times are measured from outside, in new processes. The time of a start begins when its process is created and ends
when the line of its first step arrives; then the process is killed. Cold and warm starts take turns. Each pair has a
new folder for compiled programs, so only the warm start finds programs there. Decoded images are prepared once before,
because they are kept between runs. Arguments after `--` go to `jaxcnn.main`. Writes <out>.json and a section of
<out>.md.
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import report
from jaxcnn.config import UserError

ROOT = pathlib.Path(__file__).parent.parent
MEASURES = {
    "import": "`import jaxcnn`",
    "import_training": "`import jaxcnn.train.loop`, all that training needs",
    "help": "`python -m jaxcnn.main --help`",
    "cold": "command to first step, no compiled programs",
    "warm": "command to first step, compiled programs kept",
    "warm_without_step": "the same, less a step",
}
SECTION = "startup"
FIRST_STEP = re.compile(r"^step 1/")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, print a table and write the files; return the contents of the JSON section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--out", default="results/benchmarks", help="the files to write, without .json and .md")
    parser.add_argument("flags", nargs="*", help="of jaxcnn.main, after --")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error("--repeats must be at least 1")
    try:
        out = report.check_out(options.out)
    except UserError as error:
        parser.error(str(error))
    figures = measure(options.flags or ["--config=configs/vgg16_cifar10.py"], options.repeats)
    from jaxcnn.train import environment  # imports JAX, so only after the measurement

    record = report.provenance("benchmarks.startup", {"jaxcnn": environment.facts([])}) | figures
    print(table(record))
    for path in report.write(out, SECTION, record, markdown(record)):
        print(f"wrote {path}")
    return record


def measure(flags: list[str], repeats: int) -> dict[str, Any]:
    """Seconds of every measure by name, with their medians and the flags."""
    seconds: dict[str, list[float]] = {name: [] for name in MEASURES}
    with tempfile.TemporaryDirectory() as folder:
        first_step(flags, pathlib.Path(folder), "prepare")  # reads the files of Python and the data once
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
        "seconds": seconds,
        "median": {name: statistics.median(values) for name, values in seconds.items()},
    }


def first_step(flags: list[str], folder: pathlib.Path, cache: str) -> tuple[float, float]:
    """Seconds from the command to its first step, with the compiled programs in folder/cache; and of one more step.

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
    """Wait for the second step in the log; return its seconds."""
    while process.poll() is None:
        records = metrics.read_text(encoding="utf-8").split("\n")[:-1]  # the last line is not complete yet
        if len(records) > 1:
            first, second = (json.loads(record)["train_seconds"] for record in records[:2])
            return second - first
        time.sleep(0.02)
    raise RuntimeError("the run ended before its second step")


def _timed(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def table(record: dict[str, Any]) -> str:
    """A Markdown table with the median and the range of each measure."""
    rows = []
    for name, meaning in MEASURES.items():
        values = record["seconds"][name]
        rows.append([meaning, *(f"{value:.2f}" for value in (record["median"][name], min(values), max(values)))])
    return report.table([f"seconds, n = {record['repeats']}", "median", "least", "most"], rows)


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file: a description of the measurement and a table."""
    text = (
        "Each in a fresh process, from the moment it is made; a start ends with the line of its first step. Cold and "
        f"warm starts of `jaxcnn.main {shlex.join(record['flags'])}` take turns; the images had been decoded before."
    )
    return "\n\n".join(["## Start-up", report.describe(record), text, table(record)])


if __name__ == "__main__":
    main()
