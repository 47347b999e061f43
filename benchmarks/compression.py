"""What makes trained networks small, measured on the files themselves: `python -m benchmarks.compression`.

    python -m benchmarks.compression --workdirs=runs/alexnet_cifar10,runs/vgg16_cifar10 --out=results/compression

For each finished run: float16 and int8 as files of ONNX and LiteRT; Deep Compression (Han et al. 2016: prune and train,
share values, train these, Huffman), and fewer channels, trained on, also as int8. Each step is a command that a user
would type; its folder is in `<out>-runs/<run>/<seed>`. Sizes are bytes of files. The accuracy is that of the test
split, which nothing is chosen by: sparsity, bits and epochs are flags. Latency is of one image, in turns.

The same command goes on where it was stopped. Writes <out>.json and <out>.md after each run and seed. Arguments after
`--` go to `jaxcnn.main`.
"""

import dataclasses
import pathlib
import re
from typing import Any

from absl import flags

from benchmarks import child, compression_report, report
from benchmarks.compression_report import FORMS, KINDS
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import extras, json_text
from jaxcnn.train import summary, workdir
from jaxcnn.train.interrupts import INTERRUPTED, Interrupted, Interrupts

OUT = command.define_path("out", "results/compression", "The files to write, without .json and .md.")
WORKDIRS = flags.DEFINE_list("workdirs", [], "Finished runs; the name of the folder is the name of the network.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of what is trained on.")
SPARSITY = flags.DEFINE_float("sparsity", 0.95, "Share of the weights that are pruned.")
PRUNE_EVERY = flags.DEFINE_integer("prune_every", 100, "Steps between prunings.", lower_bound=1)
RATE = flags.DEFINE_float("rate", 0.3, "Peak rate of what is trained on, over that of the run.", lower_bound=0.0)
PRUNE_EPOCHS = flags.DEFINE_float("prune_epochs", 6.0, "Epochs with pruning, and of fewer channels.", lower_bound=0.0)
TUNE_EPOCHS = flags.DEFINE_float("tune_epochs", 2.0, "Epochs of the shared values, by Adam.", lower_bound=0.0)
TUNE_RATE = flags.DEFINE_float("tune_rate", 1e-4, "Peak rate of the shared values.", lower_bound=0.0)
BITS = flags.DEFINE_integer("conv_bits", 6, "Bits of the values of a convolution.", lower_bound=1)
DENSE_BITS = flags.DEFINE_integer("dense_bits", 5, "Bits of the values of a dense layer.", lower_bound=1)
KEEP = flags.DEFINE_float("keep", 0.5, "Share of the channels that stay.")
SECONDS = flags.DEFINE_float("seconds", 1.0, "Of timing, for each network and turn.", lower_bound=0.0)
TURNS = flags.DEFINE_integer("turns", 3, "Turns of each network while it is timed.", lower_bound=1)

SECTION = "compression"
_FOLDERS = re.compile(r"(?<=:)/\S*/")
SHORT = ("--config.run.curves=False", "--config.run.tensorboard=False", "--config.checkpoint.keep_last=1")
BEGIN = "begin.py"
_BEGIN = '''"""A run that starts from the weights of another one."""

import pathlib

from jaxcnn.config import recipes


def get_config():
    return recipes.from_run(pathlib.Path({folder!r}))
'''


def main(arguments: list[str]) -> int:
    """Do what is left, and write the files; return the exit code."""
    folders = [pathlib.Path(each).absolute() for each in WORKDIRS.value]
    if not folders:
        raise UserError("there is no run: give --workdirs=<folder>,<folder>")
    if len({each.name for each in folders}) < len(folders):
        raise UserError("two folders of --workdirs have the same name, which is to be that of the network")
    if not all(each.isdecimal() for each in SEEDS.value) or not SEEDS.value:
        raise UserError(f"--seeds={','.join(SEEDS.value)}: seeds are whole numbers")
    for folder in folders:
        if summary.read(folder) is None:
            raise UserError(f"{folder} is no finished run; its command goes on with it")
    for extra in ("onnx", "litert", "compress"):
        extras.need(extra, "benchmarks.compression")
    extras.need("tfds", "benchmarks.compression", "tensorflow")
    out, interrupts = report.check_out(OUT.value), command.interrupts()
    child.ready(interrupts)
    records = []
    try:
        for folder in folders:
            for seed in map(int, SEEDS.value):
                place = out.with_name(f"{out.name}-runs") / folder.name / str(seed)
                records.append(Steps(folder, place.absolute(), seed, arguments, interrupts).measured())
                _write(out, folder, records)
    except Interrupted as error:
        return child.say_stopped(error)
    print(compression_report.markdown(_write(out, folders[-1], records)))
    return 0


def _write(out: pathlib.Path, folder: pathlib.Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    facts = json_text.parse((folder / "environment.json").read_text(encoding="utf-8"))
    facts.pop("command", None)  # of the run
    record = report.provenance("benchmarks.compression", {"jaxcnn": facts}) | {"runs": records}
    report.write(out, SECTION, record, compression_report.markdown(record))
    return record


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps for one run and seed.

    Attributes:
      folder: of the run.
      place: the folder of the steps.
      seed: of what is trained on.
      arguments: of `jaxcnn.main`, after all others.
    """

    folder: pathlib.Path
    place: pathlib.Path
    seed: int
    arguments: list[str]
    interrupts: Interrupts

    def measured(self) -> dict[str, Any]:
        """Do the steps that are left; what the report needs of this run and seed."""
        self.place.mkdir(parents=True, exist_ok=True)
        for source, name in ((self.folder, "whole"), *self._made()):
            for kind in KINDS[name]:
                for form in FORMS:
                    given = (f"--workdir={source}", f"--format={form}", f"--quantize={kind}")
                    self._file(f"{name}.{kind}.{form}", "jaxcnn.export", *given)
        told = self.place / "measured.json"
        if not told.exists():
            self._run("benchmarks.compression_measure", f"--runs={self.folder},{self.place}", *self._timing(told))
        coded = {name: _without_tables(self._read(f"{name}.jxc.json")) for name in ("pruned", "tuned")}
        slim = self._read("slim/slim.json")
        return {
            "name": self.folder.name,
            "seed": self.seed,
            "summary": self._of_run(),
            "measured": self._read(told.name),
            "coded": coded,
            "coded_bytes": {name: (self.place / f"{name}.jxc").stat().st_size for name in coded},
            "costs": {name: {of: slim[name][of] for of in ("parameters", "flops")} for name in ("before", "after")},
        }

    def _of_run(self) -> dict[str, Any]:
        """What the report tells of the run; where its data lay says nothing elsewhere."""
        figures = summary.read(self.folder)
        assert figures is not None
        told = {
            name: figures[name] for name in ("model", "data", "epochs", "seed", "headline", "headline_kind", "test")
        }
        return told | {"data": _FOLDERS.sub("", told["data"])}

    def _made(self) -> list[tuple[pathlib.Path, str]]:
        """Train what is trained on, and code it; the networks that are exported, and their names."""
        (self.place / BEGIN).write_text(_BEGIN.format(folder=str(self.folder)), encoding="utf-8")
        optim = workdir.read_config(self.folder).optim
        rate = f"--config.optim.learning_rate={RATE.value * optim.learning_rate:g}"
        pruning = ("--config.prune.scope=global", "--config.prune.end=0.5", f"--config.prune.every={PRUNE_EVERY.value}")
        bits = (f"--conv_bits={BITS.value}", f"--dense_bits={DENSE_BITS.value}")
        self._train(
            "pruned",
            self.place / BEGIN,
            PRUNE_EPOCHS.value,
            rate,
            f"--config.prune.sparsity={SPARSITY.value}",
            *pruning,
        )
        self._file("pruned.jxc", "jaxcnn.compress", f"--workdir={self.place / 'pruned'}", "--split=test", *bits)
        share = (f"--workdir={self.place / 'pruned'}", "--method=share", *bits)
        self._file("shared", "jaxcnn.compress", *share)
        adam = ("--config.optim.name=adam", "--config.optim.momentum=0.9", "--config.optim.weight_decay=0.0")
        tune = (f"--config.optim.learning_rate={TUNE_RATE.value:g}", *adam)
        self._train("tuned", self.place / "shared" / "train_on.py", TUNE_EPOCHS.value, *tune)
        self._file("tuned.jxc", "jaxcnn.compress", f"--workdir={self.place / 'tuned'}", "--split=test", *bits)
        slim = (f"--workdir={self.folder}", "--method=filters", f"--keep={KEEP.value}", "--seconds=0")
        self._file("slim", "jaxcnn.compress", *slim)
        self._train("slim_on", self.place / "slim" / "train_on.py", PRUNE_EPOCHS.value, rate)
        return [(self.place / "slim_on", "slim")]

    def _train(self, name: str, config: pathlib.Path, epochs: float, *own: str) -> None:
        folder = self.place / name
        if summary.read(folder) is None:
            length = (f"--config.run.epochs={epochs:g}", f"--config.schedule.warmup={epochs / 10:g}")
            given = (*length, *own, *SHORT, f"--config.seed={self.seed}", *self.arguments)
            self._run("jaxcnn.main", f"--config={config}", *given, f"--workdir={folder}")

    def _file(self, name: str, module: str, *given: str) -> None:
        """Run a command that writes a file or folder, unless that is there."""
        if not (self.place / name).exists():
            self._run(module, *given, f"--out={self.place / name}")

    def _timing(self, told: pathlib.Path) -> tuple[str, ...]:
        return f"--seconds={SECONDS.value}", f"--turns={TURNS.value}", f"--out={told}"

    def _run(self, module: str, *given: str) -> None:
        """Run a command to its end.

        Raises:
          Interrupted: this command was asked to stop.
          UserError: it failed.
        """
        child.check(self.interrupts)
        log = self.place / "log.txt"
        print(f"{self.folder.name}, seed {self.seed}: python -m {module} {' '.join(given)}", flush=True)
        ended = child.run(child.python(module, *given), log, self.interrupts)
        child.check(self.interrupts)
        if ended.code:
            how = "it was stopped by something else" if ended.code == INTERRUPTED else f"exit code {ended.code}"
            raise UserError(f"{module}: {how}: {child.last_line(log)}; see {log}")

    def _read(self, name: str) -> Any:
        return json_text.parse((self.place / name).read_text(encoding="utf-8"))


def _without_tables(coded: dict[str, Any]) -> dict[str, Any]:
    """The steps and layers of a coded network, of the figures those that are numbers."""
    steps = [
        step | {"figures": {name: value for name, value in step["figures"].items() if isinstance(value, int | float)}}
        for step in coded["steps"]
    ]
    return {"steps": steps, "layers": coded["layers"]}


if __name__ == "__main__":
    command.run(main, arguments=True)
