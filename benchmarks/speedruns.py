"""Many seeds of a speedrun, beside the PyTorch script of its recipe, in turns: `python -m benchmarks.speedruns`.

    python -m benchmarks.speedruns --config=sweeps/speedrun_cifar10:many --out=runs/speedruns/speedruns \
        --torch_script=airbench94_muon.py --npz=cifar10.npz -- --config.data.source=npz:cifar10.npz

In every turn `jaxcnn.sweep` goes on with its trials, for its share of --minutes, and then the script makes its share of
--runs. As in the published records, the time includes whitening, the set-up of augmentation, and training. It excludes
compilation, warm-up, and the evaluation with test-time augmentation, which is reported separately. jaxcnn's time
includes the reset of the network, the script's does not. No run is left out.

Writes <out>.json and <out>.md; the runs are beside them. If the time was up before all runs were made, the exit code is
75, and the same command goes on with what is missing. Arguments after `--` go to `jaxcnn.sweep`. In place of a script,
--torch_module names a module of ours that logs in the same columns.
"""

import contextlib
import pathlib
import sys
import time
from typing import Any

from absl import flags

from benchmarks import child, report, speedruns_report, torch_log
from benchmarks.torch_log import Run
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import json_text
from jaxcnn.study import folder as files
from jaxcnn.train import summary
from jaxcnn.train.interrupts import INTERRUPTED, Interrupted, Interrupts
from jaxcnn.train.workdir import write_json

CONFIG = flags.DEFINE_string("config", None, "The sweep: a file of configs/sweeps/, with :variant if wanted.")
OUT = command.define_path("out", "speedruns", "The files to write, without .json and .md.")
MINUTES = flags.DEFINE_float("minutes", 0.0, "Minutes for all of it; 0: until all runs are made.", lower_bound=0)
TURNS = flags.DEFINE_integer("turns", 2, "Turns of each peer in a start of the command.", lower_bound=1)
TORCH_SCRIPT = command.define_path("torch_script", "", "A script such as airbench94_muon.py; empty: jaxcnn alone.")
TORCH_MODULE = flags.DEFINE_string(
    "torch_module", "", "A module with the recipe in PyTorch, such as benchmarks.torch_cifar100, in place of a script."
)
TORCH_ARGUMENTS = flags.DEFINE_list("torch_arguments", [], "More arguments of that module.")
RUNS = flags.DEFINE_integer("runs", 50, "Runs of the script, in all turns together.", lower_bound=1)
NPZ = command.define_path("npz", "", "Arrays for the script; empty: it finds cifar10/train.pt and test.pt itself.")

SECTION = "speedruns"
TURNS_FILE = "turns.json"
FIRST_OF_TORCH = 4.0  # how much longer than another the script's first turn may be, in which it tries its kernels


def main(arguments: list[str]) -> int:
    """Take the turns that are left and write the files; return the exit code."""
    if not CONFIG.value:
        raise UserError("--config=<a sweep> is missing, such as --config=sweeps/speedrun_cifar10:many")
    script = pathlib.Path(TORCH_SCRIPT.value).absolute() if TORCH_SCRIPT.value else None
    for flag, path in (("torch_script", script), ("npz", NPZ.value and pathlib.Path(NPZ.value))):
        if path and not path.is_file():
            raise UserError(f"--{flag}={path} does not exist")
    if TORCH_MODULE.value and (script or not NPZ.value):
        raise UserError("--torch_module needs --npz=<arrays>, and takes the place of --torch_script")
    out, interrupts = report.check_out(OUT.value), command.interrupts()
    child.ready(interrupts)
    rival = (("benchmarks.torch_script", str(script)) if script else ()) or tuple(filter(None, [TORCH_MODULE.value]))
    turns = Turns(out.parent.absolute(), arguments, rival, interrupts)
    try:
        turns.take_all(time.monotonic() + 60 * MINUTES.value if MINUTES.value else None)
    except Interrupted as error:
        _write(out, turns)
        return child.say_stopped(error)
    _write(out, turns)
    if left := turns.missing():
        print(f"jaxcnn: the time was up; {left}; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0


class Turns:
    """The turns of the peers; those that earlier starts of the same command took are kept.

    Attributes:
      sweep, log: the folder of the sweep, and the log of its commands.
      taken: one entry for each turn that was taken.
    """

    def __init__(
        self, folder: pathlib.Path, arguments: list[str], rival: tuple[str, ...], interrupts: Interrupts
    ) -> None:
        self.folder, self.sweep, self.log = folder, folder / "sweep", folder / "sweep.log"
        self._arguments, self._rival, self._interrupts = arguments, rival, interrupts
        self._file = folder / TURNS_FILE
        self.taken: list[dict[str, Any]] = []
        with contextlib.suppress(OSError, ValueError):
            self.taken = json_text.parse(self._file.read_text(encoding="utf-8"))

    def take_all(self, end: float | None) -> None:
        """Let the peers take turns, each turn its share of the time up to `end`, time.monotonic().

        Raises:
          Interrupted: this command was asked to stop.
        """
        turns = [(peer, left) for left in range(TURNS.value, 0, -1) for peer in ("jaxcnn", "torch")]
        weights = [
            FIRST_OF_TORCH if turn == ("torch", TURNS.value) and not self.torch_runs() else 1.0 for turn in turns
        ]
        for number, (peer, left) in enumerate(turns):
            child.check(self._interrupts)
            if not self._missing(peer):
                continue
            rest = [w for w, (other, _) in zip(weights[number:], turns[number:], strict=True) if self._missing(other)]
            seconds = None if end is None else max(0.0, end - time.monotonic()) * weights[number] / sum(rest)
            began = time.monotonic()
            how = self._jaxcnn(seconds) if peer == "jaxcnn" else self._torch(left, seconds)
            child.check(self._interrupts)
            print(f"{peer}: {how['how']}, after {time.monotonic() - began:.0f} s", flush=True)
            self.taken.append({"peer": peer, "seconds": time.monotonic() - began, **how})
            write_json(self._file, self.taken)

    def missing(self) -> str:
        """The work that is left for a later start of the command, in words; empty if nothing is left."""
        left = [f"{self._missing(peer)} of {peer}" for peer in ("jaxcnn", "torch") if self._missing(peer)]
        return f"runs that are left: {', '.join(left)}" if left else ""

    def _missing(self, peer: str) -> int:
        """The number of runs of a peer that are not made; a script that failed is expected to make none."""
        if peer == "jaxcnn":
            if not (self.sweep / files.SWEEP).exists():
                return 1
            return len(files.read_sweep(self.sweep)["planned"]) - ended(self.sweep)
        if not self._rival or any(turn.get("failed") for turn in self.taken):
            return 0
        return max(0, RUNS.value - len(self.torch_runs()))

    def _jaxcnn(self, seconds: float | None) -> dict[str, Any]:
        """Continue the sweep; return its outcome."""
        given = [f"--config={CONFIG.value}", f"--workdir={self.sweep}", "--nomeasure", *self._arguments]
        if seconds is not None:
            given.append(f"--timeout={seconds:.0f}")
        end = child.run(child.python("jaxcnn.sweep", *given), self.log, self._interrupts)
        if end.code not in (0, INTERRUPTED):
            raise UserError(f"jaxcnn.sweep: exit code {end.code}: {child.last_line(self.log)}")
        return {"how": f"{len(trials(self.sweep))} trials so far"}

    def _torch(self, turns_left: int, seconds: float | None) -> dict[str, Any]:
        """Run the script in its own folder, where its compiler's cache stays; return its outcome."""
        number = len(list(self.folder.glob("torch-*.log"))) + 1
        place, log = self.folder / "torch", self.folder / f"torch-{number}.log"
        place.mkdir(exist_ok=True)
        share = -(-self._missing("torch") // turns_left)
        arguments = [str(share), *([str(pathlib.Path(NPZ.value).absolute())] if NPZ.value else [])]
        end = child.run(
            child.python(*self._rival, *arguments, *TORCH_ARGUMENTS.value), log, self._interrupts,
            until=None if seconds is None else time.monotonic() + seconds,
            environment={"TORCHINDUCTOR_CACHE_DIR": str(place / "cache")},
            folder=place,
        )  # fmt: skip
        made = f"{len(torch_log.runs(log))} of {share} runs"
        if end.code and not end.stopped:
            return {"how": f"{made}, exit code {end.code}: {child.last_line(log)}", "failed": True}
        return {"how": f"{made}, {end.stopped}" if end.stopped else made}

    def torch_runs(self) -> list[Run]:
        """The complete runs of the script in all turns."""
        return [run for log in sorted(self.folder.glob("torch-*.log")) for run in torch_log.runs(log)]


def trials(sweep: pathlib.Path) -> list[dict[str, Any]]:
    """The summaries of the completed trials of a sweep, in order."""
    found = []
    for folder in sorted((sweep / files.TRIALS).glob("*"), key=lambda path: int(path.name)):
        row = files.read_trial(folder)
        if row is not None and row["state"] == "complete" and (figures := summary.read(folder)) is not None:
            found.append(figures)
    return found


def ended(sweep: pathlib.Path) -> int:
    """The number of trials of a sweep that have ended in any way."""
    rows = [files.read_trial(folder) for folder in (sweep / files.TRIALS).glob("*")]
    return sum(row is not None and row["state"] in files.ENDED for row in rows)


def _name_of_rival() -> str:
    return pathlib.Path(TORCH_SCRIPT.value).name or f"{TORCH_MODULE.value.rpartition('.')[2]}.py"


def _write(out: pathlib.Path, turns: Turns) -> None:
    """Write the record and the section, and print the table, if there is a sweep."""
    if not (turns.sweep / files.SWEEP).exists():
        return
    environment = files.read_sweep(turns.sweep)["environment"]
    record = report.provenance("benchmarks.speedruns", {"jaxcnn": environment})
    record |= {"turns": turns.taken, "peers_figures": speedruns_report.lengths(trials(turns.sweep))}
    if runs := turns.torch_runs():
        record["peers_figures"].append(speedruns_report.of_torch(runs, _name_of_rival()))
    report.write(out, SECTION, record, speedruns_report.markdown(record))
    print(speedruns_report.table(record))


if __name__ == "__main__":
    command.run(main, arguments=True)
