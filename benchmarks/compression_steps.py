"""The steps of `benchmarks.compression` for one run and seed: commands that a user would type, each done once."""

import dataclasses
import pathlib
import re
import shutil
import time
from typing import Any

from benchmarks import child
from benchmarks.compression_report import FORMS, KINDS
from jaxcnn.config import UserError
from jaxcnn.machine import json_text
from jaxcnn.train import summary, workdir
from jaxcnn.train.interrupts import INTERRUPTED, Interrupted, Interrupts

_FOLDERS = re.compile(r"(?<=:)/\S*/")
SHORT = ("--config.run.curves=False", "--config.run.tensorboard=False", "--config.checkpoint.keep_last=1")
BEGIN = "begin.py"
PARTS = ("run", "compress", "export", "measure")  # of the work for one run and seed, in order
_BEGIN = '''"""A run that starts from the weights of another one."""

import pathlib

from jaxcnn.config import recipes


def get_config():
    return recipes.from_run(pathlib.Path({folder!r}))
'''


def _option(default: float, told: str) -> Any:
    """A field of `Options` with the words that say what it is."""
    return dataclasses.field(default=default, metadata={"told": told})


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of the steps for each network, each with its words; they are flags of `benchmarks.compression`."""

    sparsity: float = _option(0.95, "Share of the weights that are pruned.")
    prune_every: int = _option(100, "Steps between prunings.")
    rate: float = _option(0.3, "Peak rate of what is trained on, over that of the run.")
    prune_epochs: float = _option(6.0, "Epochs with pruning, and of fewer channels.")
    tune_epochs: float = _option(2.0, "Epochs of the shared values, by Adam.")
    tune_rate: float = _option(1e-4, "Peak rate of the shared values.")
    conv_bits: int = _option(6, "Bits of the values of a convolution.")
    dense_bits: int = _option(5, "Bits of the values of a dense layer.")
    keep: float = _option(0.5, "Share of the channels that stay.")
    seconds: float = _option(1.0, "Of timing, for each network and turn.")
    turns: int = _option(3, "Turns of each network while it is timed.")


def words() -> dict[str, str]:
    """What each option is, by name."""
    return {field.name: field.metadata["told"] for field in dataclasses.fields(Options)}


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps for one run and seed.

    Attributes:
      folder: folder of the run.
      place: the folder of the steps.
      seed: seed of further training.
      options: options of all steps.
      arguments: arguments of `jaxcnn.main`, after all others.
      until: time.monotonic() at which the steps stop, to go on in the next call; None: none.
      last: the last of `PARTS` that is done.
      config: the config by which the run is trained first; empty: it is finished.
    """

    folder: pathlib.Path
    place: pathlib.Path
    seed: int
    options: Options
    arguments: list[str]
    interrupts: Interrupts
    until: float | None = None
    last: str = PARTS[-1]
    config: str = ""

    @property
    def _told(self) -> pathlib.Path:
        return self.place / "measured.json"

    @property
    def is_done(self) -> bool:
        """Whether all steps are done."""
        return self._told.exists()

    def measured(self) -> dict[str, Any] | None:
        """Do the steps that are left; return what the report needs of this run and seed, or None before it is measured.

        Raises:
          Interrupted: this command was asked to stop, or its time is over.
          UserError: a step failed.
        """
        self.place.mkdir(parents=True, exist_ok=True)
        if self.config and summary.read(self.folder) is None:
            given = (*SHORT, f"--config.seed={self.seed}", *self.arguments)
            self._run("jaxcnn.main", f"--config={self.config}", *given, f"--workdir={self.folder}")
        if self.last == "run":
            return None
        made = self._made()
        if self.last == "compress":
            return None
        for source, name in ((self.folder, "whole"), *made):
            for kind in KINDS[name]:
                for form in FORMS:
                    given = (f"--workdir={source}", f"--format={form}", f"--quantize={kind}")
                    self._file(f"{name}.{kind}.{form}", "jaxcnn.export", *given)
        if self.last == "export":
            return None
        if not self.is_done:
            self._run("benchmarks.compression_measure", f"--runs={self.folder},{self.place}", *self._timing(self._told))
        coded = {name: without_tables(self._read(f"{name}.jxc.json")) for name in ("pruned", "tuned")}
        slim = self._read("slim/slim.json")
        return {
            "name": self.folder.name,
            "seed": self.seed,
            "summary": self._of_run(),
            "measured": self._read(self._told.name),
            "coded": coded,
            "coded_bytes": {name: (self.place / f"{name}.jxc").stat().st_size for name in coded},
            "costs": {name: {of: slim[name][of] for of in ("parameters", "flops")} for name in ("before", "after")},
        }

    def _of_run(self) -> dict[str, Any]:
        """The facts of the run for the report, without the place of its data."""
        figures = summary.read(self.folder)
        assert figures is not None
        told = {
            name: figures[name] for name in ("model", "data", "epochs", "seed", "headline", "headline_kind", "test")
        }
        return told | {"data": _FOLDERS.sub("", told["data"])}

    def _made(self) -> list[tuple[pathlib.Path, str]]:
        """Train further and code the network; return the networks that are exported, and their names."""
        (self.place / BEGIN).write_text(_BEGIN.format(folder=str(self.folder)), encoding="utf-8")
        optim = workdir.read_config(self.folder).optim
        rate = f"--config.optim.learning_rate={self.options.rate * optim.learning_rate:g}"
        pruning = (
            "--config.prune.scope=global",
            "--config.prune.end=0.5",
            f"--config.prune.every={self.options.prune_every}",
        )
        bits = (f"--conv_bits={self.options.conv_bits}", f"--dense_bits={self.options.dense_bits}")
        self._train(
            "pruned",
            self.place / BEGIN,
            self.options.prune_epochs,
            rate,
            f"--config.prune.sparsity={self.options.sparsity}",
            *pruning,
        )
        self._file("pruned.jxc", "jaxcnn.compress", f"--workdir={self.place / 'pruned'}", "--split=test", *bits)
        share = (f"--workdir={self.place / 'pruned'}", "--method=share", *bits)
        self._file("shared", "jaxcnn.compress", *share)
        adam = ("--config.optim.name=adam", "--config.optim.momentum=0.9", "--config.optim.weight_decay=0.0")
        tune = (f"--config.optim.learning_rate={self.options.tune_rate:g}", *adam)
        self._train("tuned", self.place / "shared" / "train_on.py", self.options.tune_epochs, *tune)
        self._file("tuned.jxc", "jaxcnn.compress", f"--workdir={self.place / 'tuned'}", "--split=test", *bits)
        slim = (f"--workdir={self.folder}", "--method=filters", f"--keep={self.options.keep}", "--seconds=0")
        self._file("slim", "jaxcnn.compress", *slim)
        self._train("slim_on", self.place / "slim" / "train_on.py", self.options.prune_epochs, rate)
        return [(self.place / "slim_on", "slim")]

    def _train(self, name: str, config: pathlib.Path, epochs: float, *own: str) -> None:
        folder = self.place / name
        if summary.read(folder) is None:
            length = (f"--config.run.epochs={epochs:g}", f"--config.schedule.warmup={epochs / 10:g}")
            given = (*length, *own, *SHORT, f"--config.seed={self.seed}", *self.arguments)
            self._run("jaxcnn.main", f"--config={config}", *given, f"--workdir={folder}")

    def _file(self, name: str, module: str, *given: str) -> None:
        """Run a command that writes a file or folder, unless it has done so; what a stopped one left is removed."""
        mark, made = self.place / f"{name}.done", self.place / name
        if mark.exists():
            return
        if made.is_dir():
            shutil.rmtree(made)
        made.unlink(missing_ok=True)
        self._run(module, *given, f"--out={made}")
        mark.touch()

    def _timing(self, told: pathlib.Path) -> tuple[str, ...]:
        return f"--seconds={self.options.seconds}", f"--turns={self.options.turns}", f"--out={told}"

    def _run(self, module: str, *given: str) -> None:
        """Run a command to its end.

        Raises:
          Interrupted: this command was asked to stop, or its time is over.
          UserError: the command failed.
        """
        self._check_time()
        child.check(self.interrupts)
        log = self.place / "log.txt"
        print(f"{self.folder.name}, seed {self.seed}: python -m {module} {' '.join(given)}", flush=True)
        ended = child.run(child.python(module, *given), log, self.interrupts, until=self.until)
        child.check(self.interrupts)
        if ended.code and ended.stopped == child.TIME:
            self._check_time()
        if ended.code:
            how = "it was stopped by something else" if ended.code == INTERRUPTED else f"exit code {ended.code}"
            raise UserError(f"{module}: {how}: {child.last_line(log)}; see {log}")

    def _check_time(self) -> None:
        if self.until is not None and time.monotonic() >= self.until:
            raise Interrupted("the time of --minutes is over; the same command continues")

    def _read(self, name: str) -> Any:
        return json_text.parse((self.place / name).read_text(encoding="utf-8"))


def without_tables(coded: dict[str, Any]) -> dict[str, Any]:
    """The steps and layers of a coded network, with only those figures that are numbers."""
    steps = [
        step | {"figures": {name: value for name, value in step["figures"].items() if isinstance(value, int | float)}}
        for step in coded["steps"]
    ]
    return {"steps": steps, "layers": coded["layers"]}
