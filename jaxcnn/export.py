"""Write a trained network to a file that other programs read.

    python -m jaxcnn.export --workdir=runs/resnet50 --format=safetensors --names=torchvision [--out=<file>]
    python -m jaxcnn.export --workdir=runs/resnet50 --format=onnx --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=onnx --quantize=int8 --calibration=mse --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=stablehlo --verify

safetensors: the weights alone, with the names and layouts of torchvision, timm, Keras or of jaxcnn. The metadata of the
file has the names of the classes, the mean and std of the images, their size, and the epsilon of BatchNorm.
`config.init.source=file:<path>` reads it again, to the bit.

onnx, stablehlo: the whole network, from images as stored to logits, for any batch size; normalisation is inside.
`--verify` runs the file in its own runtime (ONNX Runtime; JAX) on a split, beside the run. `--quantize=int8` makes the
products of an ONNX file those of int8, with ranges that `--calibration_split` tells; float16 makes it half as large.
`--card` writes a model card beside the file.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import pathlib
import tempfile
from typing import TYPE_CHECKING

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.config import UserError
from jaxcnn.machine import extras
from jaxcnn.text import as_markdown

if TYPE_CHECKING:
    from jaxcnn.data.batch import Split
    from jaxcnn.train.trained import Trained

NETWORK = chosen.define()
FORMAT = flags.DEFINE_enum("format", "safetensors", ["safetensors", "onnx", "stablehlo"], "Format of the file.")
NAMES = flags.DEFINE_enum(
    "names",
    "torchvision",
    ["jaxcnn", "torchvision", "timm", "keras", "caffe", "lukemelas"],
    "safetensors: whose names and layouts.",
)
OUT = command.define_path("out", "", "The file; default: <names>.safetensors, or model.<format>, in the workdir.")
FOLD = flags.DEFINE_boolean("fold", True, "onnx: BatchNorm becomes part of the convolution before it.")
QUANTIZE = flags.DEFINE_enum("quantize", "none", ["none", "float16", "int8"], "onnx: the type of weights and products.")
CALIBRATION = flags.DEFINE_enum(
    "calibration", "mse", ["minmax", "percentile", "mse"], "int8: how the range of each tensor is chosen."
)
IMAGES = flags.DEFINE_integer("calibration_images", 512, "int8: images whose values are looked at.", lower_bound=1)
SEEN = flags.DEFINE_enum("calibration_split", "train", ["train", "val"], "int8: the split of these images.")
VERIFY = flags.DEFINE_boolean("verify", False, "onnx, stablehlo: run the file on a split, beside the run.")
SPLIT = flags.DEFINE_enum("split", "val", ["train", "val", "test"], "The split for --verify.")
DATA = command.define_path("data", "", "Where the data of the run is now, if it had it elsewhere.")
CARD = flags.DEFINE_boolean("card", False, "Also write <file>.md, a model card.")
BATCH = 64  # of --verify
_OF_TYPE = {"none": "", "float16": ".float16", "int8": ".int8"}  # in the name of the file


def main() -> int:
    """Write the file; return the exit code."""
    folder = NETWORK.folder()
    kind, verify = FORMAT.value or "", VERIFY.value
    if kind == "safetensors" and verify:
        raise UserError("--verify runs a whole network: give --format=onnx or --format=stablehlo")
    if QUANTIZE.value != "none" and kind != "onnx":
        raise UserError(f"--quantize={QUANTIZE.value} is for --format=onnx")
    if QUANTIZE.value != "none" and not FOLD.value:
        raise UserError(f"--quantize={QUANTIZE.value} needs BatchNorm folded; leave --nofold out")
    needed = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxruntime") if verify else ("onnx",)}
    if kind in needed:
        extras.need(kind, f"--format={kind}", *needed[kind])
    default = (
        f"{NAMES.value}.safetensors" if kind == "safetensors" else f"model{_OF_TYPE[QUANTIZE.value or 'none']}.{kind}"
    )
    out = pathlib.Path(OUT.value) if OUT.value else folder / default
    chosen.check_place(out)
    if kind != "safetensors" and out.suffix != f".{kind}":
        raise UserError(f"--out={out}: the name of such a file must end with .{kind}")
    network = NETWORK.load()
    if verify and network.spec.task.finds is not None:
        raise UserError(f"--verify compares outputs, which config.task.name={network.config.task.name!r} has not")
    what, how = _write(network, kind, folder, out)
    print(f"jaxcnn: {out}: {what} of step {network.step} ({network.weights} weights), {how}")
    verdict = _verify(network, folder, out) if verify else []
    print(*verdict, sep="\n", end="\n" if verdict else "")
    if CARD.value:
        from jaxcnn.deploy import card

        measured = [f"- {as_markdown(line)}" for line in verdict]
        path = card.write(network, folder, out, f"{kind}, {how}", exact=QUANTIZE.value == "none", measured=measured)
        print(f"jaxcnn: {path}: a model card, whose licence and uses are to be filled in")
    return 0


def _write(network: "Trained", kind: str, folder: pathlib.Path, out: pathlib.Path) -> tuple[str, str]:
    """Write the file; return what is in it, and in which form, in words."""
    if kind == "safetensors":
        from jaxcnn.train import exported

        return f"{exported.write(network, NAMES.value, out)} arrays", f"names of {NAMES.value}"
    if kind == "onnx":
        from jaxcnn.deploy import onnx_file

        if QUANTIZE.value == "int8":
            method, seen = CALIBRATION.value or "mse", SEEN.value or "train"
            graph = onnx_file.int8_graph_of(network, _split(network, folder, seen), IMAGES.value or 1, method)
            told = {"quantize": "int8", "calibration": method, "calibration_split": seen}
            return f"{onnx_file.write_graph(graph, network, out, **told)} operators", f"int8, ranges by {method}"
        if QUANTIZE.value == "float16":
            graph = onnx_file.half_graph_of(network)
            return f"{onnx_file.write_graph(graph, network, out, quantize='float16')} operators", "float16"
        count = onnx_file.write(network, out, FOLD.value)
        return f"{count} operators", f"BatchNorm {'folded' if FOLD.value else 'as it is'}"
    from jaxcnn.deploy import stablehlo

    stablehlo.write(network, out)
    return "the network", f"for {', '.join(stablehlo.PLATFORMS)}"


def _verify(network: "Trained", folder: pathlib.Path, out: pathlib.Path) -> list[str]:
    """Run the file on a split; return the verdict for a person."""
    from jaxcnn.deploy import onnx_file, runtimes, verify
    from jaxcnn.machine import instructions

    split = _split(network, folder, SPLIT.value or "val")
    if QUANTIZE.value == "none":
        return verify.verify(network, runtimes.of_file(out), split, BATCH).lines()
    if QUANTIZE.value == "int8":
        print(*(f"jaxcnn: {line}" for line in [instructions.in_words()] if line))
    with tempfile.TemporaryDirectory() as place:
        plain = pathlib.Path(place) / "float32.onnx"
        onnx_file.write(network, plain)
        return verify.verify(network, runtimes.of_file(out), split, BATCH, runtimes.of_file(plain)).lines()


def _split(network: "Trained", folder: pathlib.Path, name: str) -> "Split":
    from jaxcnn.train import assess

    split, notes = assess.open_split(network, folder, name, DATA.value)
    for note in notes:
        print(f"jaxcnn: {note}")
    return split


if __name__ == "__main__":
    command.run(main)
