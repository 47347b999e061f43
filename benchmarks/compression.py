"""Measures ways to make trained networks small, on the files themselves: `python -m benchmarks.compression`.

    python -m benchmarks.compression --workdirs=runs/alexnet_cifar10,runs/vgg16_cifar10 --out=results/compression

Runs of the same network, set and epochs, such as runs/vgg16_seed0,runs/vgg16_seed1, share a table, which has the spread
over them and their paired differences from float32.

For each finished run: float16 and int8 as files of ONNX and LiteRT; Deep Compression (Han et al. 2016: prune and train,
share values, train these, Huffman), and fewer channels, trained on, also as int8. Each step is a command that a user
would type; its folder is in `<out>-runs/<run>/<seed>`. Sizes are bytes of files. The accuracy is that of the test
split, which nothing is chosen by: sparsity, bits and epochs are flags. Latency is of one image, in turns.

    python -m benchmarks.compression --configs=vgg16_cifar10,resnet50_cifar10 --seeds=0,1,2 --minutes=480 -- \\
        --config.data.source=npz:cifar10.npz

--configs trains the runs, too, into `<out>-runs/base`. This takes days on two cores, so it can be done in pieces: the
same command goes on where it was stopped, --minutes stops it after a time with the exit code of a resumable run, and
--until=compress leaves the files and the timing for a quiet hour. All networks of a seed come before the next seed.

Writes <out>.json and <out>.md after each run and seed. Arguments after `--` go to `jaxcnn.main`.
"""

import dataclasses
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

from absl import flags

from benchmarks import child, compression_report, report
from benchmarks.compression_steps import PARTS, Options, Steps, words
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import extras, json_text
from jaxcnn.train import summary
from jaxcnn.train.interrupts import Interrupted

OUT = command.define_path("out", "results/compression", "The files to write, without .json and .md.")
WORKDIRS = flags.DEFINE_list("workdirs", [], "Finished runs; those of one network and set share a table.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of what is trained on.")
DEFINE: dict[type, Any] = {int: flags.DEFINE_integer, float: flags.DEFINE_float}
FLAGS = {
    name: DEFINE[type(getattr(Options, name))](name, getattr(Options, name), told, lower_bound=0)
    for name, told in words().items()
}
CONFIGS = flags.DEFINE_list("configs", [], "Configs to train first, a run for each seed, such as vgg16_cifar10.")
MINUTES = flags.DEFINE_float(
    "minutes", 0.0, "Stop after this time, resumable; 0: only when all is done.", lower_bound=0.0
)
UNTIL = flags.DEFINE_enum("until", PARTS[-1], PARTS, "The last part that is done; measure wants a quiet machine.")

SECTION = "compression"


def main(arguments: list[str]) -> int:
    """Do the steps that are left, and write the files; return the exit code."""
    folders = [pathlib.Path(each).absolute() for each in WORKDIRS.value]
    if not folders and not CONFIGS.value:
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
    options = Options(**{name: flag.value for name, flag in FLAGS.items()})
    until = time.monotonic() + 60 * MINUTES.value if MINUTES.value else None
    planned = [
        Steps(folder, place, seed, options, arguments, interrupts, until, UNTIL.value or PARTS[-1], config)
        for seed in map(int, SEEDS.value)
        for folder, place, config in _places(out.with_name(f"{out.name}-runs").absolute(), folders, seed)
    ]
    print(f"{sum(steps.is_done for steps in planned)} of {len(planned)} runs and seeds are measured", flush=True)
    records: list[dict[str, Any]] = []
    record = None
    try:
        for steps in planned:
            if (measured := steps.measured()) is not None:
                records.append(measured | {"options": dataclasses.asdict(options)})
                record = _write(out, steps.folder, records)
    except Interrupted as error:
        return child.say_stopped(error)
    if record is not None:
        print(compression_report.markdown(record))
    return 0


def _places(
    root: pathlib.Path, folders: list[pathlib.Path], seed: int
) -> Iterator[tuple[pathlib.Path, pathlib.Path, str]]:
    """The folder of each run of a seed, the folder of its steps, and the config that it is trained by, if any."""
    for folder in folders:
        yield folder, root / folder.name / str(seed), ""
    for config in CONFIGS.value:
        name = f"{re.sub(r'[^A-Za-z0-9._-]', '-', config)}_seed{seed}"
        yield root / "base" / name, root / name / str(seed), config


def _write(out: pathlib.Path, folder: pathlib.Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    facts = json_text.parse((folder / "environment.json").read_text(encoding="utf-8"))
    facts.pop("command", None)  # the command of the run
    record = report.provenance("benchmarks.compression", {"jaxcnn": facts}) | {"runs": records}
    report.write(out, SECTION, record, compression_report.markdown(record))
    return record


if __name__ == "__main__":
    command.run(main, arguments=True)
