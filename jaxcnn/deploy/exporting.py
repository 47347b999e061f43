"""Writes a trained network in one of the formats, for `python -m jaxcnn.export` and `run.export`."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from jaxcnn.config import UserError
from jaxcnn.deploy import kept_figures
from jaxcnn.machine import extras, given, writable
from jaxcnn.text import as_markdown

if TYPE_CHECKING:
    from jaxcnn.data.batch import Split
    from jaxcnn.deploy.verify import Verdict
    from jaxcnn.train.trained import Trained

FORMATS = ("safetensors", "onnx", "stablehlo", "savedmodel", "tflite", "web")
NAMES = ("jaxcnn", "torchvision", "timm", "keras", "caffe", "lukemelas", "yolox")
TYPES = ("none", "float16", "int8", "whole_int8")
WHOLE_INT8, OF_INT8 = "whole_int8", ("int8", "whole_int8")
METHODS = ("minmax", "percentile", "mse")
OF_ONNX, OF_TENSORFLOW, FOLDERS = ("onnx", "web"), ("savedmodel", "tflite"), ("savedmodel", "web")
QUANTIZED = ("onnx", "tflite", "web")
OF_FORMATS = {"names": ("safetensors",), "fold": ("onnx", "savedmodel", "tflite", "web")}
CHOICES = {
    "format": FORMATS,
    "names": NAMES,
    "quantize": TYPES,
    "calibration": METHODS,
    "calibration_split": ("train", "val"),
    "split": ("train", "val", "test"),
}
CALIBRATES = ("calibration", "calibration_images", "calibration_split")
BATCH = 64  # examples per batch of `verify`
_OF_TYPE = {
    "none": "",
    "float16": ".float16",
    "int8": ".int8",
    "whole_int8": ".whole_int8",
}  # part of the name of the file


@dataclasses.dataclass(frozen=True)
class Options:
    """What is written, and how; each is a flag of `python -m jaxcnn.export`.

    Attributes:
      format: one of `FORMATS`.
      names: safetensors: one of `NAMES`.
      out: the file or folder; empty: the default one in the workdir.
      fold: BatchNorm becomes part of the convolution before it.
      quantize: one of `TYPES`.
      calibration: int8: one of `METHODS`.
      calibration_images, calibration_split: int8: the images that the ranges are measured on.
      verify: run the file on a split.
      split: this split.
      data: where the data of the run is now; empty: where it was.
      runtime: web: onnxruntime-web, a folder or .tgz; empty: fetched by npm.
      card: write a model card beside the file, or into the folder.
    """

    format: str = "safetensors"
    names: str = "torchvision"
    out: str = ""
    fold: bool = True
    quantize: str = "none"
    calibration: str = "mse"
    calibration_images: int = 512
    calibration_split: str = "train"
    verify: bool = False
    split: str = "val"
    data: str = ""
    runtime: str = ""
    card: bool = True


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file or folder that was written.

    Attributes:
      path: the file or folder.
      verdict: how it answers beside the run; None if it was not verified.
      card: the path of its model card; None if there is none.
    """

    path: pathlib.Path
    verdict: "Verdict | None"
    card: pathlib.Path | None

    def __str__(self) -> str:
        return "\n".join([str(self.path), *(self.verdict.lines() if self.verdict else [])])


def check(options: Options, given_names: Collection[str]) -> None:
    """Refuse options that do not go together, and packages that are not installed, before anything is loaded.

    Args:
      options: the options.
      given_names: the names of those that were given, and are refused if they have no effect.

    Raises:
      UserError: something is wrong.
    """
    given.check_choices(options, CHOICES)
    if options.calibration_images < 1:
        raise UserError(f"--calibration_images={options.calibration_images}: at least 1 is needed")
    kind, quantize, verify = options.format, options.quantize, options.verify
    if quantize != "none" and kind not in QUANTIZED:
        raise UserError(f"--quantize={quantize} is for --format=onnx, --format=tflite and --format=web")
    if quantize == WHOLE_INT8 and kind != "tflite":
        raise UserError(f"--quantize={quantize} is for --format=tflite; for {kind} give --quantize=int8")
    if quantize == WHOLE_INT8:
        given.refuse(["calibration"], given_names, "is for --quantize=int8; here TensorFlow measures min and max")
        extras.need("litert", f"--quantize={quantize}")
    if options.runtime and kind != "web":
        raise UserError("--runtime is for --format=web; leave it out")
    given.refuse_beside("format", kind, OF_FORMATS, given_names)
    if not verify:
        given.refuse(["split"], given_names, "is for --verify")
    if quantize not in OF_INT8:
        given.refuse(CALIBRATES, given_names, "is for --quantize=int8")
        if not verify:
            given.refuse(["data"], given_names, "is for --verify and for --quantize=int8")
    if quantize != "none" and not options.fold:
        raise UserError(f"--quantize={quantize} needs BatchNorm folded; leave --nofold out")
    if kind == "safetensors":
        extras.need(kind, f"--format={kind}")
    if kind in OF_ONNX:
        extras.need("onnx", f"--format={kind}", *(("onnx", "onnxruntime") if verify else ("onnx",)))
    if kind in OF_TENSORFLOW:
        extras.need("tfds", f"--format={kind}", "tensorflow")
    if kind == "tflite" and verify:
        extras.need("litert", "--verify of --format=tflite")


def export(
    load: "Callable[[], Trained]",
    folder: pathlib.Path,
    options: Options,
    given_names: Collection[str],
    say: Callable[[str], None],
) -> Exported:
    """Write a network.

    Args:
      load: loads the network, once the options are known to be right.
      folder: the workdir of its run.
      options: what is written.
      given_names: the names of the options that were given.
      say: is called with each line for a person.

    Raises:
      UserError: the options do not go together, or it cannot be written.
    """
    check(options, given_names)
    from jaxcnn.train import workdir

    workdir.check_run(folder)  # before its folder is refused as a place for the file
    kind = options.format
    out = place_of(folder, options)
    if options.card:
        from jaxcnn.deploy import card

        card.check(card.place_of(out, kind in FOLDERS))
    runtime = _runtime(options.runtime) if kind == "web" else {}
    network = load()
    if network.spec.optim.quantized:
        _check_trained(options, given_names)
    file = out
    if kind == "web":
        from jaxcnn.deploy import web

        file = web.begin(network, out)
    what, how = _write(network, folder, file, options, say)
    say(f"jaxcnn: {file}: {what} of step {network.step} ({network.weights} weights), {how}")
    if kind == "web":
        size = web.write(network, out, options.quantize, runtime)
        say(f"jaxcnn: {out}: a page, {size / 2**20:.1f} MiB; see it by: python -m http.server --directory {out}")
    verdict = _verified(network, folder, file, options, say) if options.verify else None
    if verdict is not None:
        kept_figures.keep_verdict(file, verdict, options.split)
    lines = verdict.lines() if verdict else []
    for line in lines:
        say(line)
    card_path = None
    if options.card:
        measured = [f"- {as_markdown(line)}" for line in lines]
        card_path = card.write(
            network, folder, out, f"{kind}, {how}", exact=options.quantize == "none", measured=measured
        )
        say(f"jaxcnn: {card_path}: {card.LEFT}")
    return Exported(out, verdict, card_path)


def place_of(folder: pathlib.Path, options: Options) -> pathlib.Path:
    """The path of the file or folder to write.

    Raises:
      UserError: it cannot be written there.
    """
    kind = options.format
    if kind in FOLDERS:
        from jaxcnn.deploy import tensorflow_files, web

        out = pathlib.Path(options.out) if options.out else folder / kind
        mark, held = (web.FACTS, "page") if kind == "web" else (tensorflow_files.FACTS, "SavedModel")
        writable.check_folder(out, kind, mark, held)
        return out
    default = f"{options.names}.safetensors" if kind == "safetensors" else f"model{_OF_TYPE[options.quantize]}.{kind}"
    out = pathlib.Path(options.out) if options.out else folder / default
    writable.check_file(out)
    if (kind != "safetensors" or options.verify) and out.suffix != f".{kind}":
        raise UserError(f"--out={out}: the name of such a file must end with .{kind}")
    return out


def _check_trained(options: Options, given_names: Collection[str]) -> None:
    """Refuse formats whose answers would differ from those of a run that was trained for int8."""
    kind = options.format
    if kind in OF_ONNX + OF_TENSORFLOW and options.quantize != "int8":
        form = kind if kind in QUANTIZED else "tflite"
        raise UserError(f"this run was trained for int8 (config.optim.quantized): give --format={form} --quantize=int8")
    for name in CALIBRATES:
        if name in given_names:
            raise UserError(f"--{name}: this run was trained with its ranges (config.optim.quantized); leave it out")


def _runtime(place: str) -> dict[str, bytes]:
    from jaxcnn.deploy import web_runtime

    return web_runtime.read(place)


def _write(
    network: "Trained", folder: pathlib.Path, out: pathlib.Path, options: Options, say: Callable[[str], None]
) -> tuple[str, str]:
    """Write the file; return two texts: its contents and its form."""
    kind = options.format
    if kind == "safetensors":
        from jaxcnn.train import exported

        return f"{exported.write(network, options.names, out)} arrays", f"names of {options.names}"
    if kind == "stablehlo":
        from jaxcnn.deploy import stablehlo

        stablehlo.write(network, out)
        return "the network", f"for {', '.join(stablehlo.PLATFORMS)}"
    from jaxcnn.deploy import calibrate, onnx_file

    quantize, seen = options.quantize, options.calibration_split
    told: dict[str, Any] = {"quantize": quantize}
    how = quantize
    if quantize == "int8" and (bits := network.spec.optim.quantized):
        graph = onnx_file.trained_int8_graph_of(network)
        told |= {"calibration": "trained", "bits_of_weights": bits}
        how = f"int8, weights of {bits} bits and ranges as they were trained"
    elif quantize == "int8":
        split = _split(network, folder, seen, options.data, say)
        graph = onnx_file.int8_graph_of(network, split, options.calibration_images, options.calibration)
        told |= {"calibration": options.calibration, "calibration_split": seen}
        how = f"int8, ranges by {options.calibration}"
    elif quantize == WHOLE_INT8:
        graph, how = onnx_file.graph_of(network), "integers alone, int8 in and out, ranges by minmax"
        told |= {"calibration": "minmax", "calibration_split": seen}
    elif quantize == "float16" and kind in OF_ONNX:
        graph = onnx_file.half_graph_of(network)
    else:
        graph = onnx_file.graph_of(network, options.fold)
    if quantize == "none":
        told, how = {}, f"BatchNorm {'folded' if options.fold else 'as it is'}"
    if kind in OF_ONNX:
        return f"{onnx_file.write_graph(graph, network, out, **told)} operators", how
    from jaxcnn.deploy import tensorflow_files

    if kind == "savedmodel":
        tensorflow_files.write_saved_model(graph, network, out)
    elif quantize == WHOLE_INT8:
        seen_images = calibrate.batches(_split(network, folder, seen, options.data, say), options.calibration_images)
        tensorflow_files.write_whole_int8(graph, network, out, seen_images, **told)
    else:
        tensorflow_files.write_lite(graph, network, out, **told)
    return f"{len(graph.nodes)} operators", how


def _verified(
    network: "Trained", folder: pathlib.Path, out: pathlib.Path, options: Options, say: Callable[[str], None]
) -> "Verdict":
    """The file on a split, beside the run."""
    from jaxcnn.deploy import onnx_file, runtimes, verify
    from jaxcnn.machine import instructions

    split = _split(network, folder, options.split, options.data, say)
    if options.format == "safetensors":
        return verify.verify(network, runtimes.of_weights(out, network), split, BATCH)
    if options.quantize == "none":
        return verify.verify(network, runtimes.of_file(out), split, BATCH)
    if options.quantize in OF_INT8 and (line := instructions.in_words()):
        say(f"jaxcnn: {line}")
    with tempfile.TemporaryDirectory() as place:
        plain = pathlib.Path(place) / f"float32{runtimes.LITE if out.suffix == runtimes.LITE else runtimes.ONNX}"
        if out.suffix == runtimes.LITE:
            from jaxcnn.deploy import tensorflow_files

            tensorflow_files.write_lite(onnx_file.graph_of(network), network, plain)
        else:
            onnx_file.write(network, plain)
        return verify.verify(network, runtimes.of_file(out), split, BATCH, runtimes.of_file(plain))


def _split(network: "Trained", folder: pathlib.Path, name: str, data: str, say: Callable[[str], None]) -> "Split":
    from jaxcnn.train import assess

    split, notes = assess.open_split(network, folder, name, data)
    for note in notes:
        say(f"jaxcnn: {note}")
    return split
