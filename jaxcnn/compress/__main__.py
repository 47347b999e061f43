"""Compress a trained network.

    python -m jaxcnn.compress --workdir=runs/vgg16 --method=deep --out=vgg16.jxc
    python -m jaxcnn.compress --workdir=runs/vgg16 --sparsity=0.9 --prune_epochs=6 --tune_epochs=2 --out=vgg16.jxc
    python -m jaxcnn.compress --workdir=runs/vgg16 --method=filters --keep=0.5 --out=runs/vgg16_slim

deep: Deep Compression (Han et al. 2016): the weights of each layer become few values, and these, with the distances
between weights that are not zero, become Huffman words. Most of the gain comes from zeros: train with
`config.prune.sparsity` first, or give --sparsity. Prints what each step brings, in bytes and on the validation split,
and writes it to <out>.json.
--sparsity first prunes the network and trains it, then trains its shared values, by two runs in <workdir>/deep. Stopped
by a signal, the same command continues.

filters: structured pruning (Li et al. 2017; with --by=norm, network slimming, Liu et al. 2017): filters leave, and
with them the channels that other layers read. --out is the folder of a new run at step 0, with a smaller network:
evaluate, export or serve it, or train it on by `python -m jaxcnn.main --config=<out>/train_on.py`.

share: only shares the weights of each layer. --out is the folder of a new run at step 0, whose shared values
`python -m jaxcnn.main --config=<out>/train_on.py` trains by the sum of their gradients; then --method=deep codes it.

`--sensitivity` writes no such file: it prunes one kernel at a time, and prints and draws the cost of each.
`--check=vgg16.jxc` measures a file again. A run starts from one by `--config.init.source=file:vgg16.jxc`.

Exit codes: 0 done; 2 an error, reported in one line; 3 a loss was not finite; 75 stopped by a signal while training.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import dataclasses
import pathlib
import sys
from typing import Any

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.command import output, unused
from jaxcnn.compress import compressing
from jaxcnn.config import UserError

NETWORK = chosen.define()
DEFAULTS = compressing.Options()
CHOICES = compressing.CHOICES
FLAGS = {
    "method": flags.DEFINE_enum(
        "method",
        DEFAULTS.method,
        compressing.METHODS,
        "deep: values, distances and Huffman words; filters: fewer channels; share: values to train on.",
    ),
    "out": command.define_path(
        "out", "", "deep: the file; default: <step>.jxc in the workdir; filters, share: the folder."
    ),
    "split": flags.DEFINE_enum("split", DEFAULTS.split, CHOICES["split"], "The split of the figures."),
    "data": command.define_path("data", "", "Where the data is now, if the run had it elsewhere."),
    "conv_bits": flags.DEFINE_integer(
        "conv_bits", DEFAULTS.conv_bits, "Bits of the values of a convolution.", lower_bound=1
    ),
    "dense_bits": flags.DEFINE_integer(
        "dense_bits", DEFAULTS.dense_bits, "Bits of the values of a dense layer.", lower_bound=1
    ),
    "sparsity": flags.DEFINE_float(
        "sparsity", DEFAULTS.sparsity, "deep: prune this share of the weights, and train, first; 0: neither."
    ),
    "prune_epochs": flags.DEFINE_float("prune_epochs", DEFAULTS.prune_epochs, "--sparsity: epochs with pruning."),
    "prune_rate": flags.DEFINE_float(
        "prune_rate", DEFAULTS.prune_rate, "--sparsity: peak rate of these epochs, over that of the run."
    ),
    "tune_epochs": flags.DEFINE_float(
        "tune_epochs", DEFAULTS.tune_epochs, "--sparsity: epochs of the shared values, by Adam; 0: none."
    ),
    "tune_rate": flags.DEFINE_float("tune_rate", DEFAULTS.tune_rate, "--sparsity: peak rate of the shared values."),
    "keep": flags.DEFINE_float("keep", DEFAULTS.keep, "filters: the share of them that stays, above 0 and at most 1."),
    "by": flags.DEFINE_enum(
        "by", DEFAULTS.by, CHOICES["by"], "filters: by their L1 norm, or by the scale of BatchNorm."
    ),
    "scope": flags.DEFINE_enum(
        "scope", DEFAULTS.scope, CHOICES["scope"], "filters: the share of each layer, or of all together."
    ),
    "seconds": flags.DEFINE_float(
        "seconds", DEFAULTS.seconds, "filters: of timing for each batch size.", lower_bound=0.0
    ),
    "card": flags.DEFINE_boolean(
        "card", True, "deep, filters: write a model card: <out>.md, or model_card.md in the folder."
    ),
}
LAYERS = flags.DEFINE_multi_string("layer_bits", [], "Bits of some layers: <pattern of the whole path>=<bits>.")
LAYER_KEEP = flags.DEFINE_multi_string("layer_keep", [], "filters: <pattern of the whole path of a layer>=<share>.")
CHECK = command.define_path("check", "", "Measure this file instead of writing one.")
SENSITIVITY = flags.DEFINE_boolean("sensitivity", False, "Measure what pruning each kernel alone costs.")
DEVICES = flags.DEFINE_integer("devices", 1, "How many local devices to use; 0: all.", lower_bound=0)


def main() -> int:
    """Compress or measure; return the exit code."""
    folder, given = NETWORK.folder(), unused.present()
    options = compressing.Options(
        **{name: flag.value for name, flag in FLAGS.items()},
        layer_bits=tuple(map(_layer_bits, LAYERS.value)),
        layer_keep=tuple(map(_layer, LAYER_KEEP.value)),
    )
    if CHECK.value or SENSITIVITY.value:
        unused.refuse_beside("method", options.method, dict.fromkeys(("check", "sensitivity"), ("deep",)))
        if options.card and "card" in given:
            raise UserError("--card needs a file that is written; leave --check and --sensitivity out")
        compressing.check(options, given)
        unused.refuse(("conv_bits", "dense_bits", "layer_bits", "sparsity"), "is for a file that is written")
        return _measure(folder, options)
    line = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
    if not options.sparsity:
        compressing.compress(_load, folder, options, given, line, _say)
        return 0
    from jaxcnn.train.hooks import Hooks
    from jaxcnn.train.interrupts import INTERRUPTED, Interrupted
    from jaxcnn.train.loop import train

    interrupts, hooks = command.interrupts(), Hooks(where="the same command continues")

    def run(config: Any, place: pathlib.Path) -> None:
        interrupts.enter("finish")  # the phase after the end of the run
        train(config, place, command=line, hooks=hooks, interrupts=interrupts)

    try:
        compressing.compress(_load, folder, options, given, line, _say, run)
    except Interrupted as error:
        print(f"jaxcnn: {error}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _measure(folder: pathlib.Path, options: compressing.Options) -> int:
    """Measure a file, or what pruning each kernel costs; return the exit code."""
    if CHECK.value and options.out:
        raise UserError("--check measures a file, and --out writes one; give one of them")
    if SENSITIVITY.value and (CHECK.value or options.out):
        raise UserError("--sensitivity writes sensitivity-<step>.json into the workdir; leave --out and --check out")
    from jaxcnn.compress import deep, sensitivity
    from jaxcnn.train import seals, workdir
    from jaxcnn.weights import files

    if CHECK.value:
        files.check(pathlib.Path(CHECK.value))
    network = compressing.loaded(_load)
    split = compressing.open_split(network, folder, options.split, options.data, _say)
    if CHECK.value:
        arrays, _ = files.read(pathlib.Path(CHECK.value), wanted=seals.shapes(network.variables))
        figures = deep.with_arrays(network, arrays).evaluate(split)
        print(f"{CHECK.value} on {split.description}:", *network.spec.task.evaluation.describe(figures), sep="\n")
        return 0
    whole, lines = sensitivity.measure(network, split, say=lambda line: _say(f"jaxcnn: {line}"))
    headline, file = network.spec.task.evaluation.headline, folder / f"sensitivity-{network.step}.json"
    print(*sensitivity.table(whole, lines, headline), sep="\n")
    kernels = [dataclasses.asdict(line) for line in lines]
    workdir.write_json(file, {"split": split.description, "whole": whole, "kernels": kernels})
    sensitivity.draw(whole, lines, headline, file.with_suffix(".png"))
    return 0


def _say(line: str) -> None:
    print(output.fitting(line), flush=True)


def _load() -> Any:
    return NETWORK.load(DEVICES.value)


def _layer(text: str) -> tuple[str, float]:
    pattern, _, share = text.rpartition("=")
    try:
        return pattern, float(share)
    except ValueError:
        raise UserError(
            f"--layer_keep={text}: write <pattern of the whole path>=<share>, such as 'conv1=0.8'"
        ) from None


def _layer_bits(text: str) -> tuple[str, float]:
    pattern, _, bits = text.rpartition("=")
    if not pattern or not bits.isdecimal():
        raise UserError(f"--layer_bits={text}: write <pattern of the whole path>=<bits>, such as 'conv1/kernel=6'")
    return pattern, int(bits)


if __name__ == "__main__":
    command.run(main)
