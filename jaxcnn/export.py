"""Write a trained network to a file that other programs read.

    python -m jaxcnn.export --workdir=runs/resnet50 --format=safetensors --names=torchvision [--out=<file>]
    python -m jaxcnn.export --workdir=runs/resnet50 --format=onnx --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=onnx --quantize=int8 --calibration=mse --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=stablehlo --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=tflite --quantize=int8 --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=web --out=page

safetensors: the weights alone, with the names and layouts of torchvision, timm, Keras or of jaxcnn. The metadata of the
file has the names of the classes, the mean and std of the images, their size, and the epsilon of BatchNorm.
`config.init.source=file:<path>` reads it again, to the bit; `--verify` does so, and compares the answers in JAX.

onnx, stablehlo, savedmodel, tflite: the whole network, from images as stored to logits, for any batch size;
normalisation is inside. `--verify` runs the file in its own runtime (ONNX Runtime; JAX; TensorFlow; LiteRT) on a split,
beside the run. `--quantize=int8` makes the products of a file of ONNX or LiteRT those of int8, with ranges that
`--calibration_split` tells, or that a run with `config.optim.quantized` was trained with; float16 makes it half as
large. A SavedModel is a folder.
web: a folder with the ONNX file, a page that classifies or finds by it in the browser, and ONNX Runtime for it, from
npm or from `--runtime`. Serve it with any server of files: `python -m http.server --directory page`.
A model card is written beside the file; `--nocard` leaves it out.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.command import output, unused
from jaxcnn.deploy import exporting

NETWORK = chosen.define()
DEFAULTS = exporting.Options()
FLAGS = {
    "format": flags.DEFINE_enum("format", DEFAULTS.format, exporting.FORMATS, "Format of the file."),
    "names": flags.DEFINE_enum("names", DEFAULTS.names, exporting.NAMES, "safetensors: whose names and layouts."),
    "out": command.define_path(
        "out",
        "",
        "The file; default: <names>.safetensors, model.<format>, or the folder savedmodel or web, in the workdir.",
    ),
    "fold": flags.DEFINE_boolean(
        "fold", True, "onnx, savedmodel, tflite, web: BatchNorm becomes part of the convolution before it."
    ),
    "quantize": flags.DEFINE_enum(
        "quantize",
        "none",
        exporting.TYPES,
        "onnx, tflite, web: the type of weights and products; whole_int8: tflite, int8 in and out.",
    ),
    "calibration": flags.DEFINE_enum(
        "calibration", DEFAULTS.calibration, exporting.METHODS, "int8: how the range of each tensor is chosen."
    ),
    "calibration_images": flags.DEFINE_integer(
        "calibration_images", DEFAULTS.calibration_images, "int8: images whose values are looked at.", lower_bound=1
    ),
    "calibration_split": flags.DEFINE_enum(
        "calibration_split", "train", exporting.CHOICES["calibration_split"], "int8: the split of these images."
    ),
    "verify": flags.DEFINE_boolean("verify", False, "Run the file on a split, beside the run."),
    "split": flags.DEFINE_enum("split", "val", exporting.CHOICES["split"], "The split for --verify."),
    "data": command.define_path("data", "", "Where the data of the run is now, if it had it elsewhere."),
    "runtime": command.define_path(
        "runtime", "", "web: onnxruntime-web, a folder or .tgz; default: fetched once, by npm."
    ),
    "card": flags.DEFINE_boolean("card", True, "Write a model card: <file>.md, or model_card.md in the folder."),
}


def main() -> int:
    """Write the file; return the exit code."""
    folder = NETWORK.folder()
    options = exporting.Options(**{name: flag.value for name, flag in FLAGS.items()})
    exporting.export(NETWORK.load, folder, options, unused.present(), _say)
    return 0


def _say(line: str) -> None:
    print(output.fitting(line), flush=True)


if __name__ == "__main__":
    command.run(main)
