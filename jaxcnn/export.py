"""Write a trained network to a file that other programs read.

    python -m jaxcnn.export --workdir=runs/resnet50 --format=safetensors --names=torchvision [--out=<file>]
    python -m jaxcnn.export --workdir=runs/resnet50 --format=onnx --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=onnx --quantize=int8 --calibration=mse --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=stablehlo --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=tflite --quantize=int8 --verify
    python -m jaxcnn.export --workdir=runs/resnet50 --format=web --out=page

safetensors: the weights alone, with the names and layouts of torchvision, timm, Keras or of jaxcnn. The metadata of the
file has the names of the classes, the mean and std of the images, their size, and the epsilon of BatchNorm.
`config.init.source=file:<path>` reads it again, to the bit.

onnx, stablehlo, savedmodel, tflite: the whole network, from images as stored to logits, for any batch size;
normalisation is inside. `--verify` runs the file in its own runtime (ONNX Runtime; JAX; TensorFlow; LiteRT) on a split,
beside the run. `--quantize=int8` makes the products of a file of ONNX or LiteRT those of int8, with ranges that
`--calibration_split` tells, or that a run with `config.optim.quantized` was trained with; float16 makes it half as
large. A SavedModel is a folder.
web: a folder with the ONNX file, a page that classifies or finds by it in the browser, and ONNX Runtime for it, from
npm or from `--runtime`. Serve it with any server of files: `python -m http.server --directory page`.
`--card` writes a model card beside the file.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import pathlib
import tempfile
from typing import TYPE_CHECKING, Any

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.command import unused, writable
from jaxcnn.config import UserError
from jaxcnn.machine import extras
from jaxcnn.text import as_markdown

if TYPE_CHECKING:
    from jaxcnn.data.batch import Split
    from jaxcnn.train.trained import Trained

NETWORK = chosen.define()
FORMATS = ["safetensors", "onnx", "stablehlo", "savedmodel", "tflite", "web"]
FORMAT = flags.DEFINE_enum("format", "safetensors", FORMATS, "Format of the file.")
NAMES = flags.DEFINE_enum(
    "names",
    "torchvision",
    ["jaxcnn", "torchvision", "timm", "keras", "caffe", "lukemelas"],
    "safetensors: whose names and layouts.",
)
OUT = command.define_path(
    "out",
    "",
    "The file; default: <names>.safetensors, model.<format>, or the folder savedmodel or web, in the workdir.",
)
FOLD = flags.DEFINE_boolean(
    "fold", True, "onnx, savedmodel, tflite, web: BatchNorm becomes part of the convolution before it."
)
QUANTIZE = flags.DEFINE_enum(
    "quantize", "none", ["none", "float16", "int8"], "onnx, tflite, web: the type of weights and products."
)
CALIBRATION = flags.DEFINE_enum(
    "calibration", "mse", ["minmax", "percentile", "mse"], "int8: how the range of each tensor is chosen."
)
IMAGES = flags.DEFINE_integer("calibration_images", 512, "int8: images whose values are looked at.", lower_bound=1)
SEEN = flags.DEFINE_enum("calibration_split", "train", ["train", "val"], "int8: the split of these images.")
VERIFY = flags.DEFINE_boolean("verify", False, "Run the file on a split; not for safetensors.")
SPLIT = flags.DEFINE_enum("split", "val", ["train", "val", "test"], "The split for --verify.")
DATA = command.define_path("data", "", "Where the data of the run is now, if it had it elsewhere.")
RUNTIME = command.define_path("runtime", "", "web: onnxruntime-web, a folder or .tgz; default: fetched once, by npm.")
CARD = flags.DEFINE_boolean("card", False, "Also write <file>.md, a model card.")
OF_ONNX, OF_TENSORFLOW, FOLDERS = ("onnx", "web"), ("savedmodel", "tflite"), ("savedmodel", "web")
QUANTIZED = ("onnx", "tflite", "web")
OF_FORMATS = {"names": ("safetensors",), "fold": ("onnx", "savedmodel", "tflite", "web")}
CALIBRATES = ("calibration", "calibration_images", "calibration_split")
BATCH = 64  # examples per batch of --verify
_OF_TYPE = {"none": "", "float16": ".float16", "int8": ".int8"}  # part of the name of the file


def main() -> int:
    """Write the file; return the exit code."""
    folder = NETWORK.folder()
    kind, verify = FORMAT.value or "", VERIFY.value
    if kind == "safetensors" and verify:
        raise UserError("--verify runs a whole network: give --format=onnx or --format=stablehlo")
    if QUANTIZE.value != "none" and kind not in QUANTIZED:
        raise UserError(f"--quantize={QUANTIZE.value} is for --format=onnx, --format=tflite and --format=web")
    if RUNTIME.value and kind != "web":
        raise UserError("--runtime is for --format=web; leave it out")
    unused.refuse_beside("format", kind, OF_FORMATS)
    if not verify:
        unused.refuse(["split"], "is for --verify")
    if QUANTIZE.value != "int8":
        unused.refuse(CALIBRATES, "is for --quantize=int8")
        if not verify:
            unused.refuse(["data"], "is for --verify and for --quantize=int8")
    if QUANTIZE.value != "none" and not FOLD.value:
        raise UserError(f"--quantize={QUANTIZE.value} needs BatchNorm folded; leave --nofold out")
    if kind == "safetensors":
        extras.need(kind, f"--format={kind}")
    if kind in OF_ONNX:
        extras.need("onnx", f"--format={kind}", *(("onnx", "onnxruntime") if verify else ("onnx",)))
    if kind in OF_TENSORFLOW:
        extras.need("tfds", f"--format={kind}", "tensorflow")
    if kind == "tflite" and verify:
        extras.need("litert", "--verify of --format=tflite")
    out = _place(folder, kind)
    runtime = _runtime() if kind == "web" else {}
    network = NETWORK.load()
    if network.spec.optim.quantized:
        _check_trained(kind)
    file = out
    if kind == "web":
        from jaxcnn.deploy import web

        file = web.begin(network, out)
    what, how = _write(network, kind, folder, file)
    print(f"jaxcnn: {file}: {what} of step {network.step} ({network.weights} weights), {how}")
    if kind == "web":
        size = web.write(network, out, QUANTIZE.value or "none", runtime)
        print(f"jaxcnn: {out}: a page, {size / 2**20:.1f} MiB; see it by: python -m http.server --directory {out}")
    verdict = _verify(network, folder, file) if verify else []
    print(*verdict, sep="\n", end="\n" if verdict else "")
    if CARD.value:
        from jaxcnn.deploy import card

        measured = [f"- {as_markdown(line)}" for line in verdict]
        path = card.write(network, folder, out, f"{kind}, {how}", exact=QUANTIZE.value == "none", measured=measured)
        print(f"jaxcnn: {path}: a model card, whose licence and uses are to be filled in")
    return 0


def _place(folder: pathlib.Path, kind: str) -> pathlib.Path:
    """The path of the file or folder to write.

    Raises:
      UserError: it cannot be written there.
    """
    if kind in FOLDERS:
        from jaxcnn.deploy import tensorflow_files, web

        out = pathlib.Path(OUT.value) if OUT.value else folder / kind
        mark, held = (web.FACTS, "page") if kind == "web" else (tensorflow_files.FACTS, "SavedModel")
        writable.check_folder(out, kind, mark, held)
        return out
    default = (
        f"{NAMES.value}.safetensors" if kind == "safetensors" else f"model{_OF_TYPE[QUANTIZE.value or 'none']}.{kind}"
    )
    out = pathlib.Path(OUT.value) if OUT.value else folder / default
    writable.check_file(out)
    if kind != "safetensors" and out.suffix != f".{kind}":
        raise UserError(f"--out={out}: the name of such a file must end with .{kind}")
    return out


def _check_trained(kind: str) -> None:
    """Refuse formats whose answers would differ from those of a run that was trained for int8."""
    if kind in OF_ONNX + OF_TENSORFLOW and QUANTIZE.value != "int8":
        form = kind if kind in QUANTIZED else "tflite"
        raise UserError(f"this run was trained for int8 (config.optim.quantized): give --format={form} --quantize=int8")
    for name in CALIBRATES:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name}: this run was trained with its ranges (config.optim.quantized); leave it out")


def _runtime() -> dict[str, bytes]:
    from jaxcnn.deploy import web_runtime

    return web_runtime.read(RUNTIME.value or "")


def _write(network: "Trained", kind: str, folder: pathlib.Path, out: pathlib.Path) -> tuple[str, str]:
    """Write the file; return two texts: its contents and its form."""
    if kind == "safetensors":
        from jaxcnn.train import exported

        return f"{exported.write(network, NAMES.value, out)} arrays", f"names of {NAMES.value}"
    if kind in OF_ONNX + OF_TENSORFLOW:
        from jaxcnn.deploy import onnx_file

        quantize, method, seen = QUANTIZE.value or "none", CALIBRATION.value or "mse", SEEN.value or "train"
        told: dict[str, Any] = {"quantize": quantize}
        how = quantize
        if quantize == "int8" and (bits := network.spec.optim.quantized):
            graph = onnx_file.trained_int8_graph_of(network)
            told |= {"calibration": "trained", "bits_of_weights": bits}
            how = f"int8, weights of {bits} bits and ranges as they were trained"
        elif quantize == "int8":
            graph = onnx_file.int8_graph_of(network, _split(network, folder, seen), IMAGES.value or 1, method)
            told, how = told | {"calibration": method, "calibration_split": seen}, f"int8, ranges by {method}"
        elif quantize == "float16" and kind in OF_ONNX:
            graph = onnx_file.half_graph_of(network)
        else:
            graph = onnx_file.graph_of(network, FOLD.value)
        if quantize == "none":
            told, how = {}, f"BatchNorm {'folded' if FOLD.value else 'as it is'}"
        if kind in OF_ONNX:
            return f"{onnx_file.write_graph(graph, network, out, **told)} operators", how
        from jaxcnn.deploy import tensorflow_files

        if kind == "savedmodel":
            tensorflow_files.write_saved_model(graph, network, out)
        else:
            tensorflow_files.write_lite(graph, network, out, **told)
        return f"{len(graph.nodes)} operators", how
    from jaxcnn.deploy import stablehlo

    stablehlo.write(network, out)
    return "the network", f"for {', '.join(stablehlo.PLATFORMS)}"


def _verify(network: "Trained", folder: pathlib.Path, out: pathlib.Path) -> list[str]:
    """Run the file on a split; return the verdict as lines of text."""
    from jaxcnn.deploy import onnx_file, runtimes, verify
    from jaxcnn.machine import instructions

    split = _split(network, folder, SPLIT.value or "val")
    if QUANTIZE.value == "none":
        return verify.verify(network, runtimes.of_file(out), split, BATCH).lines()
    if QUANTIZE.value == "int8":
        print(*(f"jaxcnn: {line}" for line in [instructions.in_words()] if line))
    with tempfile.TemporaryDirectory() as place:
        plain = pathlib.Path(place) / f"float32{runtimes.LITE if out.suffix == runtimes.LITE else runtimes.ONNX}"
        if out.suffix == runtimes.LITE:
            from jaxcnn.deploy import tensorflow_files

            tensorflow_files.write_lite(onnx_file.graph_of(network), network, plain)
        else:
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
