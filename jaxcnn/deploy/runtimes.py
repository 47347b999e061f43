"""A run or a file of one, ready to answer: what the image is, and a function of a batch.

An ONNX file is run without importing JAX, so that what is measured of it is its own.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Num

from jaxcnn.config import UserError
from jaxcnn.deploy import digest
from jaxcnn.machine import extras, instructions, json_text
from jaxcnn.text import shown

if TYPE_CHECKING:
    from jaxcnn.train.trained import Trained

Call = Callable[[Num[np.ndarray, "b h w c"]], Float[np.ndarray, "b k"]]

ONNX, STABLEHLO, LITE = ".onnx", ".stablehlo", ".tflite"  # endings of names
COMPRESSED = ".jxc"
WEIGHTS = (COMPRESSED, ".safetensors")  # of files that have no more than the weights, and facts that tell the network
FOUND = ", with finding what the outputs say"  # after the name
NOT_FOUND = ", the outputs alone"
PIXELS = ("uint8", "uint16", "float32")


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A network that is ready to be called, as a file in its runtime or in JAX.

    Attributes:
      name: name of the runtime.
      call: from images as stored to outputs; waits until these are there.
      image_shape: (H, W, C).
      image_dtype: type of the images.
      size: bytes of the file; of a run, of its weights.
      facts: facts of the file, such as its classes.
      reading: seconds for reading a file of weights, its decoding included; of other files 0.
      backend: "cpu", or that of JAX.
      device: the kind of the accelerator, such as "NVIDIA H200"; empty for "cpu".
    """

    name: str
    call: Call
    image_shape: tuple[int, int, int]
    image_dtype: str
    size: int
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reading: float = 0.0
    backend: str = "cpu"
    device: str = ""


@dataclasses.dataclass(frozen=True)
class _Outputs:
    """In place of an evaluation that finds something among the outputs: nothing is found."""


def of_run(network: "Trained", finding: bool = True) -> Runtime:
    """A trained network in JAX, on one device, by the program of `--mode=predict` for each batch size.

    For a task that finds its answers among the outputs, as boxes by suppression, that is part of the program; without
    `finding`, it is not.

    Raises:
      UserError: without `finding`, of a network that does not find anything, or finds it within itself.
    """
    import jax

    from jaxcnn.tasks.task import FindingWithin
    from jaxcnn.train import predict

    task = network.spec.task
    if not finding:
        if task.finds is None or isinstance(task.evaluation, FindingWithin):
            how = "finds within the network" if task.finds else "finds nothing among the outputs"
            raise UserError(f"--nofinding: config.task.name={network.config.task.name!r} {how}; leave the flag out")
        unfound = dataclasses.replace(task, evaluation=_Outputs())  # type: ignore[arg-type]
        network = dataclasses.replace(network, spec=dataclasses.replace(network.spec, task=unfound))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(network.variables))
    shape, dtype = network.spec.image_shape, network.spec.image_dtype
    name = f"JAX on {jax.default_backend()}" + ("" if task.finds is None else FOUND if finding else NOT_FOUND)
    return Runtime(name, lambda images: predict.outputs_of_whole(network, images), shape, dtype, size, **_of_jax())


def _of_jax() -> dict[str, Any]:
    """The backend and device of a network that JAX computes."""
    import jax

    backend = jax.default_backend()
    return {"backend": backend, "device": "" if backend == "cpu" else jax.devices()[0].device_kind}


def of_file(path: pathlib.Path, threads: int = 0, in_jax: bool = False) -> Runtime:
    """The file of an exported network.

    Args:
      path: the file, whose name tells its format; the folder of a SavedModel.
      threads: threads of ONNX Runtime and LiteRT; 0: one per core.
      in_jax: compute a file of ONNX in JAX instead.

    Raises:
      UserError: it cannot be read, or does not tell its images.
    """
    size, where = None, {}
    if path.suffix in WEIGHTS:
        return of_weights(path)
    if path.suffix == ONNX and in_jax:
        import jax

        (call, facts), where = _onnx_in_jax(path), _of_jax()
        name = f"JAX on {jax.default_backend()}, by {path.name}"
    elif path.suffix == ONNX:
        call, facts = _onnx(path, threads)
        name = "ONNX Runtime on cpu"
    elif path.suffix == STABLEHLO:
        import jax

        from jaxcnn.deploy import stablehlo

        (call, facts), where = stablehlo.read(path), _of_jax()
        call = _answering(path, call)  # its facts may tell images of another shape
        name = f"StableHLO in JAX on {jax.default_backend()}"
    elif path.suffix == LITE:
        from jaxcnn.deploy import tensorflow_files

        call, facts = tensorflow_files.read_lite(path, threads)
        name = "LiteRT on cpu"
    elif path.is_dir():
        from jaxcnn.deploy import tensorflow_files

        call, facts, size = tensorflow_files.read_saved_model(path)
        name = "TensorFlow on cpu"
    else:
        raise UserError(
            f"{shown(str(path))} is no exported network; its name must end with {ONNX}, {STABLEHLO} or {LITE}, as "
            f"those of jaxcnn.export do, or with {' or '.join(WEIGHTS)}, as weights of jaxcnn do"
        )
    shape, dtype = facts.get("image_shape"), facts.get("image_dtype")
    if not isinstance(shape, list) or len(shape) != 3 or dtype not in PIXELS:
        raise UserError(f"{shown(str(path))} does not tell the size of its images; export the run again")
    size = size or path.stat().st_size
    return Runtime(name, call, (shape[0], shape[1], shape[2]), dtype, size, facts, **where)


def of_int8(runtime: Runtime) -> str:
    """A line on this processor's instructions for int8 (`machine.instructions`); empty for files of other types."""
    return instructions.in_words() if runtime.facts.get("quantize") in ("int8", "whole_int8") else ""


def of_weights(path: pathlib.Path, run: "Trained | None" = None) -> Runtime:
    """The network whose weights and facts a file has, in JAX.

    Args:
      path: the file.
      run: the network that it was made of; only needed for code that is not in the file.

    Raises:
      UserError: the file cannot be read, or does not tell its network.
    """
    from jaxcnn.train import of_facts

    began = time.perf_counter()
    network, facts = of_facts.read(path) if run is None else of_facts.read_beside(path, run)
    found = of_run(network)
    name = f"{found.name}, weights of {path.name}"
    size, seconds = path.stat().st_size, time.perf_counter() - began
    return dataclasses.replace(found, name=name, size=size, facts=facts, reading=seconds)


def _onnx_in_jax(path: pathlib.Path) -> tuple[Call, dict[str, Any]]:
    """The function of an ONNX file in JAX, compiled at each new batch size, and its facts."""
    import jax

    from jaxcnn.deploy import onnx_file, predictor
    from jaxcnn.graphs import in_jax

    graph, texts = onnx_file.read(path, digest.checked(path))
    call = jax.jit(in_jax.function(graph, predictor.INPUT))
    return _answering(path, lambda images: np.asarray(call(images))), _facts(texts)


def _onnx(path: pathlib.Path, threads: int) -> tuple[Call, dict[str, Any]]:
    """The function of an ONNX file in ONNX Runtime on the CPU, and its facts."""
    extras.need("onnx", f"running {shown(path.name)}", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors, which are raised as well
    # Without VNNI or AMX, the fastest int8 products of x86 lose sums above 16 bits; this asks for exact ones.
    options.add_session_config_entry("session.x64quantprecision", "1")
    content = digest.checked(path)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # those of ONNX Runtime have no class in common
        raise UserError(f"{shown(str(path))} does not run here ({' '.join(str(error).split())[:150]})") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    try:
        texts = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(str(path))} has facts that are not text; export the run again") from error
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(f"{shown(str(path))} has not one input of images and one output; export the run again")
    name = inputs[0].name
    return _answering(path, lambda images: np.asarray(session.run(None, {name: images})[0])), _facts(texts)


def _answering(path: pathlib.Path, call: Call) -> Call:
    """The function of a file, whose graph may be one that jaxcnn never wrote: then it fails only when it runs."""

    def answer(images: np.ndarray) -> np.ndarray:
        try:
            return call(images)
        except Exception as error:  # those of ONNX Runtime have no class in common
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:150]
            raise UserError(f"{shown(str(path))} does not run here ({reason}); export the run again") from error

    return answer


def _facts(texts: Mapping[str, str]) -> dict[str, Any]:
    return {fact: json_text.parse_or_keep(text) for fact, text in texts.items()}
