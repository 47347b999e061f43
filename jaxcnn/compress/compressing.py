"""Compresses a trained network by one of the methods, for `python -m jaxcnn.compress` and `run.compress`."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from jaxcnn.config import UserError
from jaxcnn.machine import given, writable
from jaxcnn.text import as_markdown, counted, markdown_table, shown

if TYPE_CHECKING:
    from jaxcnn.compress.chain import Train
    from jaxcnn.compress.deep import Bits
    from jaxcnn.compress.filters import Cost
    from jaxcnn.data.batch import Split
    from jaxcnn.deploy.latency import Timing
    from jaxcnn.train.trained import Trained

METHODS = ("deep", "filters", "share")
OF_TRAINING = ("prune_epochs", "prune_rate", "tune_epochs", "tune_rate")
OF_METHODS = {
    **dict.fromkeys(("conv_bits", "dense_bits", "layer_bits"), ("deep", "share")),
    **dict.fromkeys(("sparsity", *OF_TRAINING), ("deep",)),
    **dict.fromkeys(("keep", "by", "scope", "layer_keep", "seconds"), ("filters",)),
}
CHOICES = {"method": METHODS, "by": ("l1", "norm"), "scope": ("layer", "global"), "split": ("train", "val", "test")}
BATCHES = (1, 32)  # batch sizes of the latencies
TURNS = 3  # turns of each network when they are timed

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """What is done, and how; each is a flag of `python -m jaxcnn.compress`.

    Attributes:
      method: one of `METHODS`.
      out: deep: the file, by default `<step>.jxc` in the workdir; filters, share: the folder of the new run.
      split: the split of the figures.
      data: where the data of the run is now; empty: where it was.
      conv_bits, dense_bits: deep, share: bits of the shared values of a convolution and of a dense layer.
      layer_bits: deep, share: pairs (pattern of whole paths, bits), which come first.
      sparsity: deep: above 0: prune this share of the weights and train first (`chain`); 0: compress them as they are.
      prune_epochs, prune_rate: deep: length of that training, and its peak rate over that of the run.
      tune_epochs, tune_rate: deep: length of the training of the shared values, 0: none; and its peak rate.
      keep: filters: the share of them that stays, above 0 and at most 1.
      by, scope: filters: "l1" or "norm"; "layer" or "global".
      layer_keep: filters: pairs (pattern of layers, share), which come first.
      seconds: filters: of timing, for each batch size.
      card: deep, filters: write a model card beside the file, or into the folder.
    """

    method: str = "deep"
    out: str = ""
    split: str = "val"
    data: str = ""
    conv_bits: int = 8
    dense_bits: int = 5
    layer_bits: tuple[tuple[str, float], ...] = ()
    sparsity: float = 0.0
    prune_epochs: float = 6.0
    prune_rate: float = 0.3
    tune_epochs: float = 2.0
    tune_rate: float = 1e-4
    keep: float = 0.5
    by: str = "l1"
    scope: str = "layer"
    layer_keep: tuple[tuple[str, float], ...] = ()
    seconds: float = 1.0
    card: bool = True


@dataclasses.dataclass(frozen=True)
class Compressed:
    """A file or run that was written.

    Attributes:
      path: the file of deep, or the folder of the new run of filters and share.
      table: what was measured, as lines of a Markdown table; notebooks show it.
      figures: the same as numbers; for deep and filters what the JSON file beside the result holds.
      card: the path of its model card; None if there is none.
    """

    path: pathlib.Path
    table: list[str]
    figures: dict[str, Any]
    card: pathlib.Path | None = None

    def __str__(self) -> str:
        return "\n".join([str(self.path), *self.table])

    def _repr_markdown_(self) -> str:
        return "\n".join(self.table)


def check(options: Options, given_names: Collection[str]) -> None:
    """Refuse options that are out of range or have no effect, before anything is loaded.

    Raises:
      UserError: something is wrong.
    """
    given.check_choices(options, CHOICES)
    if options.card and "card" in given_names and options.method == "share":
        raise UserError("--card describes a finished network; train the shared values first, then use --method=deep")
    given.refuse_beside("method", options.method, OF_METHODS, given_names, word="and")
    if not 0 <= options.sparsity < 1:
        raise UserError(f"--sparsity={options.sparsity:g}: the share of zeros must be at least 0 and below 1")
    if not options.sparsity:
        given.refuse(OF_TRAINING, given_names, "is for --sparsity above 0")
    for name in OF_TRAINING:
        value = getattr(options, name)
        if not 0 <= value < math.inf or (not value and name != "tune_epochs"):
            raise UserError(f"--{name}={value:g}: it must be above 0{', or 0 for none' * (name == 'tune_epochs')}")
    if options.method != "deep" and not options.out:
        raise UserError(f"--method={options.method} needs --out=<folder of the new run>")
    for name, share in (("keep", options.keep), *((f"layer_keep={name}", share) for name, share in options.layer_keep)):
        if not 0 < share <= 1:
            raise UserError(f"--{name}={share}: the share that stays must be above 0 and at most 1")


def compress(
    load: "Callable[[], Trained]",
    folder: pathlib.Path,
    options: Options,
    given_names: Collection[str],
    command: Sequence[str],
    say: Say,
    train: "Train | None" = None,
) -> Compressed:
    """Compress a network.

    Args:
      load: loads the network, once the options are known to be right.
      folder: the workdir of its run.
      options: the method, and its options.
      given_names: the names of the options that were given.
      command: the command line, for the record of a new run.
      say: is called with each line for a person.
      train: trains a run of a config in a folder, or continues it; for a sparsity above 0.

    Raises:
      UserError: the options do not go together, or the result cannot be written.
    """
    check(options, given_names)
    if options.method == "deep":
        return _deep(load, folder, options, say, train)
    method = {"filters": _filters, "share": _share}[options.method]
    return method(load, folder, options, list(command), say)


def loaded(load: "Callable[[], Trained]") -> "Trained":
    """The network of the run. Raises UserError if it was trained with rounded weights."""
    network = load()
    if network.spec.optim.quantized:
        raise UserError(
            "this run was trained for int8 (config.optim.quantized): python -m jaxcnn.export --format=onnx "
            "--quantize=int8 writes it; compress the run that it started from"
        )
    return network


def open_split(network: "Trained", folder: pathlib.Path, name: str, data: str, say: Say) -> "Split":
    """The split of the figures, of the data of a run."""
    from jaxcnn.train import assess

    split, notes = assess.open_split(network, folder, name, data)
    for note in notes:
        say(f"jaxcnn: {note}")
    return split


def bits_of(options: Options) -> "Bits":
    """The bits of the shared values. Raises UserError if they are out of range."""
    from jaxcnn.compress import deep

    bits = deep.Bits(options.conv_bits, options.dense_bits, options.layer_bits)
    for flag, number in (("conv_bits", bits.convolution), ("dense_bits", bits.dense), *bits.layers):
        if not 1 <= number <= deep.MOST_BITS:
            raise UserError(f"--{flag}={number:g}: bits of shared values are 1 to {deep.MOST_BITS}")
    return bits


def _deep(
    load: "Callable[[], Trained]", folder: pathlib.Path, options: Options, say: Say, train: "Train | None"
) -> Compressed:
    from jaxcnn.compress import chain, deep
    from jaxcnn.train import workdir

    bits = bits_of(options)
    network = loaded(load)
    split = open_split(network, folder, options.split, options.data, say)
    out = pathlib.Path(options.out) if options.out else folder / f"{network.step}.jxc"
    writable.check_file(out)
    if options.card:
        from jaxcnn.deploy import card as cards

        cards.check(cards.place_of(out, is_folder=False))

    def told(line: str) -> None:
        say(f"jaxcnn: {line}")

    before: list[deep.Row] = []
    if options.sparsity:
        assert train is not None
        training = chain.Training(
            options.sparsity, options.prune_epochs, options.prune_rate, options.tune_epochs, options.tune_rate,
            options.data,
        )  # fmt: skip
        network, folder, before = chain.train(network, folder, split, bits, training, train, told)
    rows, layers = deep.compress(network, split, out, bits, told)
    rows = chain.joined(before, rows) if before else rows
    if not any(layer.live < layer.weights for layer in layers):
        say("jaxcnn: no weight is zero; train with --config.prune.sparsity=0.9, which saves most, or give --sparsity")
    table = deep.table(rows, network)
    for line in (*deep.table_of_layers(layers), "", *table):
        say(line)
    figures = {"split": split.description, "step": network.step, "weights": network.weights}
    tables = {name: [dataclasses.asdict(row) for row in found] for name, found in (("steps", rows), ("layers", layers))}
    workdir.write_json(out.with_name(f"{out.name}.json"), figures | tables)
    card = None
    if options.card:
        safe = [dataclasses.replace(row, step=as_markdown(row.step)) for row in rows]
        form = "jxc: shared values and Huffman words"
        card = _card(network, folder, out, form, split, deep.table(safe, network), say)
    return Compressed(out, table, figures | tables, card)


def _share(
    load: "Callable[[], Trained]", folder: pathlib.Path, options: Options, command: list[str], say: Say
) -> Compressed:
    from jaxcnn.compress import begun, deep

    out, bits = pathlib.Path(options.out), bits_of(options)
    begun.check(out)
    network = loaded(load)
    split = open_split(network, folder, options.split, options.data, say)
    shared = deep.begun(network, bits)
    begun.write(shared, folder, out, command)
    evaluation, lines, measured = network.spec.task.evaluation, [], {}
    for name, each in (("before", network), ("shared", shared)):
        measured[name] = figures = each.evaluate(split)
        lines.append([name, evaluation.headline.shown(figures[evaluation.headline.name]), f"{figures['loss']:.4f}"])
    table = markdown_table(["", evaluation.headline.label, "loss"], lines)
    for line in table:
        say(line)
    say(f"jaxcnn: figures on {split.description}; {out} is a run at step 0, {out / begun.TRAIN_ON} trains its values")
    return Compressed(out, table, {"split": split.description, **measured})


def _filters(
    load: "Callable[[], Trained]", folder: pathlib.Path, options: Options, command: list[str], say: Say
) -> Compressed:
    from jaxcnn.compress import begun, filters
    from jaxcnn.train import workdir

    keep = filters.Keep(options.keep, options.by, options.scope, options.layer_keep)
    out = pathlib.Path(options.out)
    begun.check(out)
    network = loaded(load)
    split = open_split(network, folder, options.split, options.data, say)
    small, remarks = filters.slim(network, keep)
    for remark in remarks:
        say(f"jaxcnn: {remark}")
    begun.write(small, folder, out, command)
    layers = filters.rows(network, small)
    for line in (*filters.table(layers), ""):
        say(line)
    headline, measured, lines = network.spec.task.evaluation.headline, {}, []
    networks = {"before": network, "after": small}
    timings = _times(networks, options.seconds)
    for name, each in networks.items():
        found, times, figures = filters.cost(each), timings[name], each.evaluate(split)
        measured[name] = dataclasses.asdict(found) | {
            "timings": [dataclasses.asdict(timing) for timing in times],
            "figures": figures,
        }
        lines.append(_row(name, found, times, headline.shown(figures[headline.name]), figures))
    milliseconds = [f"ms, {batch} image{'s' if batch > 1 else ''}" for batch in BATCHES]
    table = markdown_table(["", "parameters", "FLOPs", "bytes", *milliseconds, headline.label, "loss"], lines)
    for line in table:
        say(line)
    say(f"jaxcnn: figures on {split.description}; {out} is a run at step 0, {out / begun.TRAIN_ON} trains it on")
    told = {"from": str(folder), "step": network.step, "weights": network.weights, "keep": dataclasses.asdict(keep)}
    told |= {"split": split.description, "layers": layers, **measured}
    workdir.write_json(out / "slim.json", told)
    card = None
    if options.card:
        form = f"a run of jaxcnn, slimmed to {keep.share:g} and not trained on"
        card = _card(small, out, out, form, split, table, say)
    return Compressed(out, table, told, card)


def _card(
    network: "Trained",
    folder: pathlib.Path,
    out: pathlib.Path,
    form: str,
    split: "Split",
    table: list[str],
    say: Say,
) -> pathlib.Path:
    from jaxcnn.deploy import card

    lines = [f"On {as_markdown(shown(split.description))}, {counted(len(split), 'example')}:", "", *table]
    path = card.write(network, folder, out, form, exact=False, measured=lines)
    say(f"jaxcnn: {path}: {card.LEFT}")
    return path


def _times(networks: "dict[str, Trained]", seconds: float) -> "dict[str, list[Timing]]":
    """The latencies of networks, measured in turns; for each network the turn that was disturbed least."""
    from jaxcnn.deploy import latency, runtimes

    turns = [
        {name: latency.measure(runtimes.of_run(each), BATCHES, seconds / TURNS) for name, each in pairs}
        for pairs in [list(networks.items())] * TURNS
    ]
    return {
        name: [min((turn[name][i] for turn in turns), key=lambda timing: timing.p50) for i in range(len(BATCHES))]
        for name in networks
    }


def _row(name: str, cost: "Cost", times: "list[Timing]", headline: str, figures: dict[str, Any]) -> list[str]:
    sizes = [f"{number:,}" for number in (cost.parameters, cost.flops, cost.size)]
    return [name, *sizes, *(f"{1000 * each.p50:.2f}" for each in times), headline, f"{figures['loss']:.4f}"]
