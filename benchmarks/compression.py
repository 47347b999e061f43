"""Measures ways to make trained networks small, on the files themselves: `python -m benchmarks.compression`.

    python -m benchmarks.compression --workdirs=runs/alexnet_cifar10,runs/vgg16_cifar10 --out=results/compression

Runs of the same network, set and epochs, such as runs/vgg16_seed0,runs/vgg16_seed1, share a table, which has the spread
over them and their paired differences from float32.

For each finished run: float16 and int8 as files of ONNX and LiteRT; Deep Compression (Han et al. 2016: prune and train,
share values, train these, Huffman), and fewer channels, trained on, also as int8. Each step is a command that a user
would type; its folder is in `<out>-runs/<run>/<seed>`. Sizes are bytes of files. The accuracy is that of the test
split, which nothing is chosen by: sparsity, bits and epochs are flags. Latency is of one image, in turns.

The same command goes on where it was stopped. Writes <out>.json and <out>.md after each run and seed. Arguments after
`--` go to `jaxcnn.main`.
"""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from benchmarks import child, compression_report, report
from benchmarks.compression_steps import Options, Steps
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import extras, json_text
from jaxcnn.train import summary
from jaxcnn.train.interrupts import Interrupted

OUT = command.define_path("out", "results/compression", "The files to write, without .json and .md.")
WORKDIRS = flags.DEFINE_list("workdirs", [], "Finished runs; those of one network and set share a table.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of what is trained on.")
OPTIONS = {
    "sparsity": "Share of the weights that are pruned.",
    "prune_every": "Steps between prunings.",
    "rate": "Peak rate of what is trained on, over that of the run.",
    "prune_epochs": "Epochs with pruning, and of fewer channels.",
    "tune_epochs": "Epochs of the shared values, by Adam.",
    "tune_rate": "Peak rate of the shared values.",
    "conv_bits": "Bits of the values of a convolution.",
    "dense_bits": "Bits of the values of a dense layer.",
    "keep": "Share of the channels that stay.",
    "seconds": "Of timing, for each network and turn.",
    "turns": "Turns of each network while it is timed.",
}
DEFINE: dict[type, Any] = {int: flags.DEFINE_integer, float: flags.DEFINE_float}
FLAGS = {
    name: DEFINE[type(getattr(Options, name))](name, getattr(Options, name), told, lower_bound=0)
    for name, told in OPTIONS.items()
}

SECTION = "compression"


def main(arguments: list[str]) -> int:
    """Do the steps that are left, and write the files; return the exit code."""
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
    options = Options(**{name: flag.value for name, flag in FLAGS.items()})
    records = []
    try:
        for folder in folders:
            for seed in map(int, SEEDS.value):
                place = out.with_name(f"{out.name}-runs") / folder.name / str(seed)
                steps = Steps(folder, place.absolute(), seed, options, arguments, interrupts)
                records.append(steps.measured() | {"options": dataclasses.asdict(options)})
                _write(out, folder, records)
    except Interrupted as error:
        return child.say_stopped(error)
    print(compression_report.markdown(_write(out, folders[-1], records)))
    return 0


def _write(out: pathlib.Path, folder: pathlib.Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    facts = json_text.parse((folder / "environment.json").read_text(encoding="utf-8"))
    facts.pop("command", None)  # the command of the run
    record = report.provenance("benchmarks.compression", {"jaxcnn": facts}) | {"runs": records}
    report.write(out, SECTION, record, compression_report.markdown(record))
    return record


if __name__ == "__main__":
    command.run(main, arguments=True)
