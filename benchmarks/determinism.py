"""Checks that equal starts of a run give equal bits: `python -m benchmarks.determinism --out=<files> -- --config=…`.

Starts `jaxcnn.main` with the arguments after `--`: twice, and once more stopped by SIGTERM after its first checkpoint
and resumed, all with XLA's flag for deterministic kernels on GPUs; then twice without it, unless --plain=false. Each
start has an empty cache of compiled programs and of XLA's choices of kernels, as on another machine; the resumed one
has that of its first start. Compared are the CRC-32 of every array of the last checkpoint, and each record of the log.

Writes <out>.json and <out>.md; the runs are in `determinism-runs` beside them, and are not repeated by the same
command.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
from typing import Any

from absl import flags

from benchmarks import child, determinism_report, report
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import xla_flags
from jaxcnn.train import seals, summary
from jaxcnn.train.interrupts import INTERRUPTED, Interrupted, Interrupts

OUT = command.define_path("out", "determinism", "The files to write, without .json and .md.")
PLAIN = flags.DEFINE_bool("plain", True, "Also start twice without the flag.")

FLAG = ("xla_gpu_deterministic_ops", "true")  # so in jaxlib 0.10.2 and 0.11.2; it also turns off autotuning
SECTION = "determinism"
TIMINGS = ("images_per_second", "train_seconds")
STOPPED = re.compile(r"stopped with a checkpoint of step (\d+) of (\d+)")


@dataclasses.dataclass(frozen=True)
class Start:
    """A run that is compared: its name, whether it has the flag, and whether it is stopped and resumed."""

    name: str
    deterministic: bool = True
    stopped: bool = False


STARTS = (Start("first"), Start("second"), Start("resumed", stopped=True))
WITHOUT = (Start("plain-first", deterministic=False), Start("plain-second", deterministic=False))


def main(arguments: list[str]) -> int:
    """Make the runs, compare them and write the files; return the exit code."""
    out, interrupts = report.check_out(OUT.value), command.interrupts()
    if not any(argument.startswith("--config=") for argument in arguments):
        raise UserError("the run is missing: give its flags after --, such as -- --config=quickstart")
    child.ready(interrupts)
    starts = STARTS + (WITHOUT if PLAIN.value else ())
    folder = out.with_name(f"{out.name}-runs")
    folder.mkdir(exist_ok=True)
    made: dict[str, dict[str, Any]] = {}
    try:
        for start in starts:
            made[start.name] = run(start, arguments, folder, interrupts)
            print(f"{start.name}: {made[start.name]['last_line']}")
    except Interrupted as error:
        return child.say_stopped(error)
    finally:
        if made:
            record = report.provenance("benchmarks.determinism", {"jaxcnn": made["first"]["environment"]})
            record |= {"flag": "--{}={}".format(*FLAG), "run": arguments, "starts": made}
            record["pairs"] = determinism_report.pairs(made)
            report.write(out, SECTION, record, determinism_report.markdown(record))
    print(determinism_report.table(record))
    return 0


def run(start: Start, arguments: list[str], folder: pathlib.Path, interrupts: Interrupts) -> dict[str, Any]:
    """Make a run to its end, if it was not made before; return its facts to compare.

    Raises:
      Interrupted: this command was asked to stop; the run has saved, and the same command resumes it.
      UserError: the run failed, or ended before it could be stopped.
    """
    workdir, log = folder / start.name, folder / f"{start.name}.log"

    def go_on(once: bool) -> int:
        child.check(interrupts)
        command_line = child.python("jaxcnn.main", *arguments, f"--workdir={workdir}")
        ended = child.run(
            command_line, log, interrupts,
            environment=_environment(start, folder), enough=lambda: once and _has_checkpoint(workdir),
        )  # fmt: skip
        child.check(interrupts)
        if ended.code not in (0, INTERRUPTED):
            raise UserError(f"{start.name}: exit code {ended.code}: {child.last_line(log)}")
        return ended.code

    if start.stopped and not _has_checkpoint(workdir):
        go_on(once=True)
    if summary.read(workdir) is None and go_on(once=False):
        raise UserError(f"{start.name}: it stopped by itself: {child.last_line(log)}")
    stops = [(int(step), int(steps)) for step, steps in STOPPED.findall(log.read_text(encoding="utf-8"))]
    if start.stopped and not any(step < steps for step, steps in stops):
        shutil.rmtree(workdir)
        raise UserError("the run ended before it could be stopped at its first checkpoint; give it more epochs")
    return facts(workdir) | {"stopped_at": [step for step, _ in stops]}


def facts(workdir: pathlib.Path) -> dict[str, Any]:
    """The facts of a finished run that are compared, and its speed."""
    newest, figures = seals.newest_record(workdir / "checkpoints"), summary.read(workdir)
    if newest is None or figures is None:
        raise UserError(f"{workdir} has no finished run")
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "arrays": newest[1]["arrays"],
        "records": [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines],
        "steps": newest[0],
        "starts": figures["starts"],
        "images_per_second": figures["images_per_second"],
        "environment": json.loads((workdir / "environment.json").read_text(encoding="utf-8")),
        "last_line": summary.last_line(figures),
    }


def _environment(start: Start, folder: pathlib.Path) -> dict[str, str]:
    cache = str(folder / f"cache-{start.name}")
    given = os.environ.get("XLA_FLAGS", "")
    own = xla_flags.merged(given, dict([FLAG])) if start.deterministic else given
    return {"XLA_FLAGS": own, "JAXCNN_CACHE": cache, "JAX_COMPILATION_CACHE_DIR": f"{cache}/programs"}


def _has_checkpoint(workdir: pathlib.Path) -> bool:
    return seals.newest_record(workdir / "checkpoints") is not None


if __name__ == "__main__":
    command.run(main, arguments=True)
