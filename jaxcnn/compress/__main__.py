"""Compress a trained network: `python -m jaxcnn.compress --workdir=runs/vgg16 --method=deep --out=vgg16.jxc`.

Deep Compression (Han et al. 2016): the weights of each layer become few values, and these, with the distances between
weights that are not zero, become Huffman words. Train with `config.prune.sparsity` first, since most of the gain comes
from zeros. Prints what each step brings, in bytes and on the validation split, and writes it to <out>.json.

`--sensitivity` writes no such file: it prunes one kernel at a time, and tells and draws what each costs.
`--check=vgg16.jxc` measures a file again. A run starts from one by `--config.init.source=file:vgg16.jxc`.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import dataclasses
import pathlib

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.config import UserError

NETWORK = chosen.define()
METHOD = flags.DEFINE_enum("method", "deep", ["deep"], "deep: shared values, relative indices and Huffman words.")
OUT = command.define_path("out", "", "The file; default: <checkpoint's step>.jxc in the workdir.")
CHECK = command.define_path("check", "", "Measure this file instead of writing one.")
SENSITIVITY = flags.DEFINE_boolean("sensitivity", False, "Measure what pruning each kernel alone costs.")
SPLIT = flags.DEFINE_enum("split", "val", ["train", "val", "test"], "The split of the figures.")
DATA = command.define_path("data", "", "Where the data is now, if the run had it elsewhere.")
CONVOLUTION = flags.DEFINE_integer("conv_bits", 8, "Bits of the values of a convolution.", lower_bound=1)
DENSE = flags.DEFINE_integer("dense_bits", 5, "Bits of the values of a dense layer.", lower_bound=1)
LAYERS = flags.DEFINE_multi_string("layer_bits", [], "Bits of some layers: <pattern of the whole path>=<bits>.")
DEVICES = flags.DEFINE_integer("devices", 1, "How many local devices to use; 0: all.", lower_bound=0)


def main() -> int:
    """Compress or measure; return the exit code."""
    folder = NETWORK.folder()
    if CHECK.value and OUT.value:
        raise UserError("--check measures a file, and --out writes one; give one of them")
    if SENSITIVITY.value and (CHECK.value or OUT.value):
        raise UserError("--sensitivity writes sensitivity-<step>.json into the workdir; leave --out and --check out")
    from jaxcnn.compress import deep, sensitivity
    from jaxcnn.train import assess, workdir
    from jaxcnn.weights import files

    bits = deep.Bits(CONVOLUTION.value, DENSE.value, tuple(map(_layer_bits, LAYERS.value)))
    for flag, number in (("conv_bits", bits.convolution), ("dense_bits", bits.dense), *bits.layers):
        if not 1 <= number <= deep.MOST_BITS:
            raise UserError(f"--{flag}={number:g}: bits of shared values are 1 to {deep.MOST_BITS}")
    arrays = files.read(pathlib.Path(CHECK.value))[0] if CHECK.value else {}
    network = NETWORK.load(DEVICES.value)
    split, notes = assess.open_split(network, folder, SPLIT.value or "val", DATA.value)
    for note in notes:
        print(f"jaxcnn: {note}")
    if CHECK.value:
        figures = deep.with_arrays(network, arrays).evaluate(split)
        print(f"{CHECK.value} on {split.description}:", *network.spec.task.evaluation.describe(figures), sep="\n")
        return 0
    if SENSITIVITY.value:
        whole, lines = sensitivity.measure(network, split, say=lambda line: print(f"jaxcnn: {line}", flush=True))
        headline, file = network.spec.task.evaluation.headline, folder / f"sensitivity-{network.step}.json"
        print(*sensitivity.table(whole, lines, headline), sep="\n")
        kernels = [dataclasses.asdict(line) for line in lines]
        workdir.write_json(file, {"split": split.description, "whole": whole, "kernels": kernels})
        sensitivity.draw(whole, lines, headline, file.with_suffix(".png"))
        return 0
    out = pathlib.Path(OUT.value) if OUT.value else folder / f"{network.step}.jxc"
    chosen.check_place(out)
    rows, layers = deep.compress(network, split, out, bits, lambda line: print(f"jaxcnn: {line}", flush=True))
    if not any(layer.live < layer.weights for layer in layers):
        print("jaxcnn: no weight is zero; train with --config.prune.sparsity=0.9, which saves most")
    print(*deep.table_of_layers(layers), "", *deep.table(rows, network), sep="\n")
    figures = {"split": split.description, "step": network.step, "weights": network.weights}
    tables = {name: [dataclasses.asdict(row) for row in found] for name, found in (("steps", rows), ("layers", layers))}
    workdir.write_json(out.with_name(f"{out.name}.json"), figures | tables)
    return 0


def _layer_bits(text: str) -> tuple[str, float]:
    pattern, _, bits = text.rpartition("=")
    if not pattern or not bits.isdecimal():
        raise UserError(f"--layer_bits={text}: write <pattern of the whole path>=<bits>, such as 'conv1/kernel=6'")
    return pattern, int(bits)


if __name__ == "__main__":
    command.run(main)
