"""Many seeds of a speedrun, beside the PyTorch script of its recipe, in turns: `python -m benchmarks.speedruns`.

    python -m benchmarks.speedruns --config=sweeps/speedrun_cifar10:many --out=runs/speedruns/speedruns \
        --torch_script=airbench94_muon.py --npz=cifar10.npz -- --config.data.source=npz:cifar10.npz

In every turn `jaxcnn.sweep` goes on with its trials, for its share of --minutes, and then the script makes its share of
--runs. jaxcnn's first trial of a process loads or compiles its programs, the script has a run of warm-up: neither is in
the clock, which is that of the record holders: the reset of the network, whitening, the set-up of augmentation and
training; not compilation, and not the evaluation with test-time augmentation, which is told beside it. No run is left
out. The script's clock begins after its reset; jaxcnn's has it.

Writes <out>.json and <out>.md; the runs are beside them, and the same command goes on with what is missing. Arguments
after `--` go to `jaxcnn.sweep`.
"""

import json
import pathlib
import time
from typing import Any

from absl import flags

from benchmarks import child, report, speedruns_report, torch_log
from benchmarks.torch_log import Run
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.study import folder as files
from jaxcnn.train import summary
from jaxcnn.train.interrupts import INTERRUPTED, Interrupted, Interrupts

CONFIG = flags.DEFINE_string("config", None, "The sweep: a file of configs/sweeps/, with :variant if wanted.")
OUT = command.define_path("out", "speedruns", "The files to write, without .json and .md.")
MINUTES = flags.DEFINE_float("minutes", 0.0, "Minutes for all of it; 0: until all runs are made.", lower_bound=0)
TURNS = flags.DEFINE_integer("turns", 2, "Turns of each peer.", lower_bound=1)
TORCH_SCRIPT = command.define_path("torch_script", "", "A script such as airbench94_muon.py; empty: jaxcnn alone.")
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
    out, interrupts = report.check_out(OUT.value), command.interrupts()
    child.ready(interrupts)
    turns = Turns(out.parent.absolute(), arguments, script, interrupts)
    try:
        turns.take_all(time.time() + 60 * MINUTES.value if MINUTES.value else None)
    except Interrupted as error:
        _write(out, turns)
        return child.say_stopped(error)
    _write(out, turns)
    if not trials(turns.sweep):
        raise UserError(f"no trial was completed: {child.last_line(turns.log)}")
    return 0


class Turns:
    """The turns of the peers, and which of them were taken, also by earlier starts of the same command.

    Attributes:
      sweep, log: the folder of the sweep, and the log of its commands.
      taken: one entry for each turn that was taken.
    """

    def __init__(
        self, folder: pathlib.Path, arguments: list[str], script: pathlib.Path | None, interrupts: Interrupts
    ) -> None:
        self.folder, self.sweep, self.log = folder, folder / "sweep", folder / "sweep.log"
        self._arguments, self._script, self._interrupts = arguments, script, interrupts
        self._file = folder / TURNS_FILE
        self.taken: list[dict[str, Any]] = json.loads(self._file.read_text()) if self._file.exists() else []

    def take_all(self, end: float | None) -> None:
        """Take all turns that are left, each for its share of the time up to `end`, time.time().

        Raises:
          Interrupted: this command was asked to stop.
        """
        peers = ("jaxcnn", "torch") if self._script else ("jaxcnn",)
        taken = {(each["peer"], each["turn"]) for each in self.taken}
        left = [(p, t) for t in range(TURNS.value) for p in peers if (p, t) not in taken]
        weights = [FIRST_OF_TORCH if (p, t) == ("torch", 0) else 1.0 for p, t in left]
        for number, (peer, turn) in enumerate(left):
            child.check(self._interrupts)
            seconds = None
            if end is not None:
                seconds = max(0.0, end - time.time()) * weights[number] / sum(weights[number:])
            began = time.time()
            how = self._jaxcnn(seconds) if peer == "jaxcnn" else self._torch(turn, seconds)
            child.check(self._interrupts)
            print(f"turn {turn + 1}, {peer}: {how} after {time.time() - began:.0f} s", flush=True)
            self.taken.append({"peer": peer, "turn": turn, "seconds": time.time() - began, "how": how})
            part = self._file.with_suffix(".part")
            part.write_text(json.dumps(self.taken), encoding="utf-8")
            part.replace(self._file)

    def _jaxcnn(self, seconds: float | None) -> str:
        """Go on with the sweep; return how it ended."""
        if _all_made(self.sweep):
            return "all trials were made before"
        given = [f"--config={CONFIG.value}", f"--workdir={self.sweep}", "--nomeasure", *self._arguments]
        if seconds is not None:
            given.append(f"--timeout={seconds:.0f}")
        ended = child.run(child.python("jaxcnn.sweep", *given), self.log, self._interrupts)
        if ended.code not in (0, INTERRUPTED):
            raise UserError(f"jaxcnn.sweep: exit code {ended.code}: {child.last_line(self.log)}")
        return f"{len(trials(self.sweep))} trials so far"

    def _torch(self, turn: int, seconds: float | None) -> str:
        """Run the script in its own folder, where its compiler's cache stays; return how it ended."""
        assert self._script is not None
        place, log = self.folder / "torch", self.torch_log(turn)
        place.mkdir(exist_ok=True)
        share = RUNS.value * (turn + 1) // TURNS.value - RUNS.value * turn // TURNS.value
        arguments = [str(self._script), str(share), *([str(pathlib.Path(NPZ.value).absolute())] if NPZ.value else [])]
        ended = child.run(
            child.python("benchmarks.torch_script", *arguments), log, self._interrupts,
            until=None if seconds is None else time.time() + seconds,
            environment={"TORCHINDUCTOR_CACHE_DIR": str(place / "cache")},
            folder=place,
        )  # fmt: skip
        made = len(torch_log.runs(log))
        if ended.stopped or not ended.code:
            return f"{made} of {share} runs" + (f", {ended.stopped}" if ended.stopped else "")
        return f"{made} of {share} runs, exit code {ended.code}: {child.last_line(log)}"

    def torch_log(self, turn: int) -> pathlib.Path:
        """The log of the script in a turn."""
        return self.folder / f"torch-{turn + 1}.log"

    def torch_runs(self) -> list[Run]:
        """The complete runs of the script in all turns."""
        return [run for turn in range(TURNS.value) for run in torch_log.runs(self.torch_log(turn))]


def trials(sweep: pathlib.Path) -> list[dict[str, Any]]:
    """The summaries of the completed trials of a sweep, in order."""
    found = []
    for folder in sorted((sweep / files.TRIALS).glob("*"), key=lambda path: int(path.name)):
        row = files.read_trial(folder)
        if row is not None and row["state"] == "complete" and (figures := summary.read(folder)) is not None:
            found.append(figures)
    return found


def _all_made(sweep: pathlib.Path) -> bool:
    return (sweep / files.SWEEP).exists() and len(trials(sweep)) == len(files.read_sweep(sweep)["planned"])


def _write(out: pathlib.Path, turns: Turns) -> None:
    """Write the record and the section, and print the table, if there is a sweep."""
    if not (turns.sweep / files.SWEEP).exists():
        return
    environment = files.read_sweep(turns.sweep)["environment"]
    record = report.provenance("benchmarks.speedruns", {"jaxcnn": environment})
    record |= {"turns": turns.taken, "peers_figures": speedruns_report.lengths(trials(turns.sweep))}
    if runs := turns.torch_runs():
        record["peers_figures"].append(speedruns_report.of_torch(runs, pathlib.Path(TORCH_SCRIPT.value).name))
    report.write(out, SECTION, record, speedruns_report.markdown(record))
    print(speedruns_report.table(record))


if __name__ == "__main__":
    command.run(main, arguments=True)
