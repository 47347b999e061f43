"""Write a trained network to a file that other programs read.

    python -m jaxcnn.export --workdir=runs/resnet50 --format=safetensors --names=torchvision [--out=<file>]
    python -m jaxcnn.export --workdir=runs/resnet50 --format=onnx --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=stablehlo --verify

safetensors: the weights alone, with the names and layouts of torchvision, timm, Keras or of jaxcnn. The metadata of the
file has the names of the classes, the mean and std of the images, their size, and the epsilon of BatchNorm.
`config.init.source=file:<path>` reads it again, to the bit.

onnx, stablehlo: the whole network, from images as stored to logits, for any batch size; normalisation is inside.
`--verify` runs the file in its own runtime (ONNX Runtime; JAX) on a split, beside the run.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import pathlib
from typing import TYPE_CHECKING

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.config import UserError
from jaxcnn.machine import extras

if TYPE_CHECKING:
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
VERIFY = flags.DEFINE_boolean("verify", False, "onnx, stablehlo: run the file on a split, beside the run.")
SPLIT = flags.DEFINE_enum("split", "val", ["train", "val", "test"], "The split for --verify.")
DATA = command.define_path("data", "", "Where the data for --verify is now, if the run had it elsewhere.")
BATCH = 64  # of --verify


def main() -> int:
    """Write the file; return the exit code."""
    folder = NETWORK.folder()
    kind, verify = FORMAT.value or "", VERIFY.value
    if kind == "safetensors" and verify:
        raise UserError("--verify runs a whole network: give --format=onnx or --format=stablehlo")
    needed = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxruntime") if verify else ("onnx",)}
    if kind in needed:
        extras.need(kind, f"--format={kind}", *needed[kind])
    default = f"{NAMES.value}.safetensors" if kind == "safetensors" else f"model.{kind}"
    out = pathlib.Path(OUT.value) if OUT.value else folder / default
    chosen.check_place(out)
    if kind != "safetensors" and out.suffix != f".{kind}":
        raise UserError(f"--out={out}: the name of such a file must end with .{kind}")
    network = NETWORK.load()
    if verify and network.spec.task.finds is not None:
        raise UserError(f"--verify compares outputs, which config.task.name={network.config.task.name!r} has not")
    what, how = _write(network, kind, out)
    print(f"jaxcnn: {out}: {what} of step {network.step} ({network.weights} weights), {how}")
    if verify:
        _verify(network, folder, out)
    return 0


def _write(network: "Trained", kind: str, out: pathlib.Path) -> tuple[str, str]:
    """Write the file; return what is in it, and in which form, in words."""
    if kind == "safetensors":
        from jaxcnn.train import exported

        return f"{exported.write(network, NAMES.value, out)} arrays", f"names of {NAMES.value}"
    if kind == "onnx":
        from jaxcnn.deploy import onnx_file

        count = onnx_file.write(network, out, FOLD.value)
        return f"{count} operators", f"BatchNorm {'folded' if FOLD.value else 'as it is'}"
    from jaxcnn.deploy import stablehlo

    stablehlo.write(network, out)
    return "the network", f"for {', '.join(stablehlo.PLATFORMS)}"


def _verify(network: "Trained", folder: pathlib.Path, out: pathlib.Path) -> None:
    from jaxcnn.deploy import runtimes, verify
    from jaxcnn.train import assess

    split, notes = assess.open_split(network, folder, SPLIT.value or "val", DATA.value)
    for note in notes:
        print(f"jaxcnn: {note}")
    print(*verify.verify(network, runtimes.of_file(out), split, BATCH).lines(), sep="\n")


if __name__ == "__main__":
    command.run(main)
