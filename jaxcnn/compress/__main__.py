"""Compress a trained network.

    python -m jaxcnn.compress --workdir=runs/vgg16 --method=deep --out=vgg16.jxc
    python -m jaxcnn.compress --workdir=runs/vgg16 --method=filters --keep=0.5 --out=runs/vgg16_slim

deep: Deep Compression (Han et al. 2016): the weights of each layer become few values, and these, with the distances
between weights that are not zero, become Huffman words. Train with `config.prune.sparsity` first, since most of the
gain comes from zeros. Prints what each step brings, in bytes and on the validation split, and writes it to <out>.json.

filters: structured pruning (Li et al. 2017; with --by=norm, network slimming, Liu et al. 2017): filters leave, and
with them the channels that other layers read. --out is the folder of a new run at step 0, with a smaller network:
evaluate, export or serve it, or train it on by `python -m jaxcnn.main --config=<out>/train_on.py`.

share: only shares the weights of each layer. --out is the folder of a new run at step 0, whose shared values
`python -m jaxcnn.main --config=<out>/train_on.py` trains by the sum of their gradients; then --method=deep codes it.

`--sensitivity` writes no such file: it prunes one kernel at a time, and tells and draws what each costs.
`--check=vgg16.jxc` measures a file again. A run starts from one by `--config.init.source=file:vgg16.jxc`.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import dataclasses
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.command import unused, writable
from jaxcnn.config import UserError
from jaxcnn.text import as_markdown, counted, markdown_table, shown

if TYPE_CHECKING:
    from jaxcnn.compress.deep import Bits
    from jaxcnn.compress.filters import Cost
    from jaxcnn.data.batch import Split
    from jaxcnn.deploy.latency import Timing
    from jaxcnn.train.trained import Trained

NETWORK = chosen.define()
METHOD = flags.DEFINE_enum(
    "method",
    "deep",
    ["deep", "filters", "share"],
    "deep: values, distances and Huffman words; filters: fewer channels; share: values to train on.",
)
OUT = command.define_path("out", "", "deep: the file; default: <step>.jxc in the workdir; filters, share: the folder.")
CHECK = command.define_path("check", "", "Measure this file instead of writing one.")
SENSITIVITY = flags.DEFINE_boolean("sensitivity", False, "Measure what pruning each kernel alone costs.")
SPLIT = flags.DEFINE_enum("split", "val", ["train", "val", "test"], "The split of the figures.")
DATA = command.define_path("data", "", "Where the data is now, if the run had it elsewhere.")
CONVOLUTION = flags.DEFINE_integer("conv_bits", 8, "Bits of the values of a convolution.", lower_bound=1)
DENSE = flags.DEFINE_integer("dense_bits", 5, "Bits of the values of a dense layer.", lower_bound=1)
LAYERS = flags.DEFINE_multi_string("layer_bits", [], "Bits of some layers: <pattern of the whole path>=<bits>.")
KEEP = flags.DEFINE_float("keep", 0.5, "filters: the share of them that stays, above 0 and at most 1.")
BY = flags.DEFINE_enum("by", "l1", ["l1", "norm"], "filters: by their L1 norm, or by the scale of BatchNorm.")
SCOPE = flags.DEFINE_enum(
    "scope", "layer", ["layer", "global"], "filters: the share of each layer, or of all together."
)
LAYER_KEEP = flags.DEFINE_multi_string("layer_keep", [], "filters: <pattern of the whole path of a layer>=<share>.")
SECONDS = flags.DEFINE_float("seconds", 1.0, "filters: of timing for each batch size.", lower_bound=0.0)
CARD = flags.DEFINE_boolean("card", False, "Also write a model card: <out>.md, or model_card.md in the folder.")
DEVICES = flags.DEFINE_integer("devices", 1, "How many local devices to use; 0: all.", lower_bound=0)


OF_METHODS = {
    **dict.fromkeys(("conv_bits", "dense_bits", "layer_bits"), ("deep", "share")),
    **dict.fromkeys(("check", "sensitivity"), ("deep",)),
    **dict.fromkeys(("keep", "by", "scope", "layer_keep", "seconds"), ("filters",)),
}
BATCHES = (1, 32)  # batch sizes of the latencies
TURNS = 3  # turns of each network when they are timed


def main() -> int:
    """Compress or measure; return the exit code."""
    folder = NETWORK.folder()
    if CARD.value and METHOD.value == "share":
        raise UserError("--card describes a finished network; train the shared values first, then use --method=deep")
    if CARD.value and (CHECK.value or SENSITIVITY.value):
        raise UserError("--card needs a file that is written; leave --check and --sensitivity out")
    unused.refuse_beside("method", METHOD.value or "", OF_METHODS, word="and")
    if CHECK.value or SENSITIVITY.value:
        unused.refuse(("conv_bits", "dense_bits", "layer_bits"), "is for a file that is written")
    return {"deep": _deep, "filters": _filters, "share": _share_values}[METHOD.value or ""](folder)


def _deep(folder: pathlib.Path) -> int:
    if CHECK.value and OUT.value:
        raise UserError("--check measures a file, and --out writes one; give one of them")
    if SENSITIVITY.value and (CHECK.value or OUT.value):
        raise UserError("--sensitivity writes sensitivity-<step>.json into the workdir; leave --out and --check out")
    from jaxcnn.compress import deep, sensitivity
    from jaxcnn.train import seals, workdir
    from jaxcnn.weights import files

    bits = _bits()
    if CHECK.value:
        files.check(pathlib.Path(CHECK.value))
    network = _load()
    split = _split(network, folder)
    if CHECK.value:
        arrays, _ = files.read(pathlib.Path(CHECK.value), wanted=seals.shapes(network.variables))
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
    writable.check_file(out)
    rows, layers = deep.compress(network, split, out, bits, lambda line: print(f"jaxcnn: {line}", flush=True))
    if not any(layer.live < layer.weights for layer in layers):
        print("jaxcnn: no weight is zero; train with --config.prune.sparsity=0.9, which saves most")
    print(*deep.table_of_layers(layers), "", *deep.table(rows, network), sep="\n")
    figures = {"split": split.description, "step": network.step, "weights": network.weights}
    tables = {name: [dataclasses.asdict(row) for row in found] for name, found in (("steps", rows), ("layers", layers))}
    workdir.write_json(out.with_name(f"{out.name}.json"), figures | tables)
    if CARD.value:
        safe = [dataclasses.replace(row, step=as_markdown(row.step)) for row in rows]
        _card(network, folder, out, "jxc: shared values and Huffman words", split, deep.table(safe, network))
    return 0


def _load() -> "Trained":
    """The network of the run. Raises UserError if it was trained with rounded weights."""
    network = NETWORK.load(DEVICES.value)
    if network.spec.optim.quantized:
        raise UserError(
            "this run was trained for int8 (config.optim.quantized): python -m jaxcnn.export --format=onnx "
            "--quantize=int8 writes it; compress the run that it started from"
        )
    return network


def _bits() -> "Bits":
    from jaxcnn.compress import deep

    bits = deep.Bits(CONVOLUTION.value, DENSE.value, tuple(map(_layer_bits, LAYERS.value)))
    for flag, number in (("conv_bits", bits.convolution), ("dense_bits", bits.dense), *bits.layers):
        if not 1 <= number <= deep.MOST_BITS:
            raise UserError(f"--{flag}={number:g}: bits of shared values are 1 to {deep.MOST_BITS}")
    return bits


def _share_values(folder: pathlib.Path) -> int:
    from jaxcnn.compress import begun, deep

    if not OUT.value:
        raise UserError("--method=share needs --out=<folder of the new run>")
    out, bits = pathlib.Path(OUT.value), _bits()
    begun.check(out)
    network = _load()
    split = _split(network, folder)
    shared = deep.begun(network, bits)
    begun.write(shared, folder, out, [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]])
    evaluation, lines = network.spec.task.evaluation, []
    for name, each in (("before", network), ("shared", shared)):
        figures = each.evaluate(split)
        lines.append([name, evaluation.headline.shown(figures[evaluation.headline.name]), f"{figures['loss']:.4f}"])
    print(*markdown_table(["", evaluation.headline.label, "loss"], lines), sep="\n")
    print(f"jaxcnn: figures on {split.description}; {out} is a run at step 0, {out / begun.TRAIN_ON} trains its values")
    return 0


def _filters(folder: pathlib.Path) -> int:
    from jaxcnn.compress import begun, filters
    from jaxcnn.train import workdir

    keep = filters.Keep(
        _share("keep", KEEP.value), BY.value or "", SCOPE.value or "", tuple(map(_layer, LAYER_KEEP.value))
    )
    if not OUT.value:
        raise UserError("--method=filters needs --out=<folder of the new run>")
    out = pathlib.Path(OUT.value)
    begun.check(out)
    network = _load()
    split = _split(network, folder)
    small, remarks = filters.slim(network, keep)
    for remark in remarks:
        print(f"jaxcnn: {remark}")
    begun.write(small, folder, out, [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]])
    layers = filters.rows(network, small)
    print(*filters.table(layers), "", sep="\n", flush=True)
    headline, measured, lines = network.spec.task.evaluation.headline, {}, []
    networks = {"before": network, "after": small}
    timings = _times(networks)
    for name, each in networks.items():
        found, times, figures = filters.cost(each), timings[name], each.evaluate(split)
        measured[name] = dataclasses.asdict(found) | {
            "timings": [dataclasses.asdict(timing) for timing in times],
            "figures": figures,
        }
        lines.append(_row(name, found, times, headline.shown(figures[headline.name]), figures))
    milliseconds = [f"ms, {batch} image{'s' if batch > 1 else ''}" for batch in BATCHES]
    table = markdown_table(["", "parameters", "FLOPs", "bytes", *milliseconds, headline.label, "loss"], lines)
    print(*table, sep="\n")
    print(f"jaxcnn: figures on {split.description}; {out} is a run at step 0, {out / begun.TRAIN_ON} trains it on")
    chosen_by = dataclasses.asdict(keep)
    workdir.write_json(
        out / "slim.json",
        {"from": str(folder), "step": network.step, "weights": network.weights, "keep": chosen_by}
        | {"split": split.description, "layers": layers, **measured},
    )
    if CARD.value:
        _card(small, out, out, f"a run of jaxcnn, slimmed to {keep.share:g} and not trained on", split, table)
    return 0


def _card(
    network: "Trained", folder: pathlib.Path, out: pathlib.Path, form: str, split: "Split", table: list[str]
) -> None:
    from jaxcnn.deploy import card

    lines = [f"On {as_markdown(shown(split.description))}, {counted(len(split), 'example')}:", "", *table]
    path = card.write(network, folder, out, form, exact=False, measured=lines)
    print(f"jaxcnn: {path}: a model card, whose licence and uses are to be filled in")


def _split(network: "Trained", folder: pathlib.Path) -> "Split":
    from jaxcnn.train import assess

    split, notes = assess.open_split(network, folder, SPLIT.value or "val", DATA.value)
    for note in notes:
        print(f"jaxcnn: {note}")
    return split


def _times(networks: "dict[str, Trained]") -> "dict[str, list[Timing]]":
    """The latencies of networks, measured in turns; for each network the turn that was disturbed least."""
    from jaxcnn.deploy import latency, runtimes

    turns = [
        {name: latency.measure(runtimes.of_run(each), BATCHES, (SECONDS.value or 0.0) / TURNS) for name, each in pairs}
        for pairs in [list(networks.items())] * TURNS
    ]
    return {
        name: [min((turn[name][i] for turn in turns), key=lambda timing: timing.p50) for i in range(len(BATCHES))]
        for name in networks
    }


def _row(name: str, cost: "Cost", times: "list[Timing]", headline: str, figures: dict[str, Any]) -> list[str]:
    sizes = [f"{number:,}" for number in (cost.parameters, cost.flops, cost.size)]
    return [name, *sizes, *(f"{1000 * each.p50:.2f}" for each in times), headline, f"{figures['loss']:.4f}"]


def _share(flag: str, share: float | None) -> float:
    if share is None or not 0 < share <= 1:
        raise UserError(f"--{flag}={share}: the share that stays must be above 0 and at most 1")
    return share


def _layer(text: str) -> tuple[str, float]:
    pattern, _, share = text.rpartition("=")
    try:
        return pattern, _share(f"layer_keep={pattern}", float(share))
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
