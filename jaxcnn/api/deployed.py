"""The methods of a run that make files of its network, time it and serve it; the commands call the same functions."""

import contextlib
import functools
import io
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from jaxcnn.api import arguments, objects
from jaxcnn.api.errors import python_words
from jaxcnn.api.shown import Records
from jaxcnn.config import UserError
from jaxcnn.machine import extras
from jaxcnn.machine.given import of_python

if TYPE_CHECKING:
    from jaxcnn.compress.compressing import Compressed
    from jaxcnn.config import Config
    from jaxcnn.deploy.exporting import Exported
    from jaxcnn.serve.running import Running
    from jaxcnn.train.trained import Trained

Place = str | os.PathLike[str]
_CALL = "import jaxcnn"  # in the records of new runs, in place of a command line


class Deployed:
    """The base of `jaxcnn.Run` with these methods.

    Attributes:
      workdir: the folder of the run.
    """

    workdir: pathlib.Path

    def _trained(self) -> "Trained":
        """The network on one device; its data is there even if the run was made from arrays."""
        raise NotImplementedError

    def export(
        self,
        format: Literal["safetensors", "onnx", "stablehlo", "savedmodel", "tflite", "web"],
        out: Place = "",
        *,
        quantize: Literal["none", "float16", "int8", "whole_int8"] = "none",
        verify: bool = False,
        split: Literal["train", "val", "test"] = "val",
        names: Literal["jaxcnn", "torchvision", "timm", "keras", "caffe", "lukemelas", "yolox"] = "torchvision",
        fold: bool = True,
        calibration: Literal["minmax", "percentile", "mse"] = "mse",
        calibration_images: int = 512,
        calibration_split: Literal["train", "val"] = "train",
        data: Place = "",
        runtime: Place = "",
        card: bool = True,
        progress: bool = True,
    ) -> "Exported":
        """Write the network to a file that other programs read, as `python -m jaxcnn.export` does.

        Args:
          format: "safetensors" has the weights alone; the others the whole network (`docs/small.md`).
          out: the file, or the folder of "savedmodel" and "web"; empty: the default one in the workdir.
          quantize: type of the weights and products of "onnx", "tflite" and "web"; "whole_int8", for "tflite", has int8
            images and outputs, too.
          verify: also run the file in its own runtime on `split`; the result is `verdict`.
          split: the split of `verify`.
          names: whose names and layouts "safetensors" has.
          fold: BatchNorm becomes part of the convolution before it.
          calibration, calibration_images, calibration_split: how and on which images the ranges for int8 are measured.
          data: where the data of the run is now, if it has moved.
          runtime: onnxruntime-web as a folder or .tgz, for format "web"; empty: fetched by npm.
          card: write a model card beside the file, or into the folder.
          progress: whether to print what is done.

        Returns:
          The `path`, its `verdict` (None without `verify`) and the path of its `card`.

        Raises:
          UserError: the arguments do not go together, the network cannot be written so, or a package is missing.
        """
        from jaxcnn.deploy import exporting

        with python_words():
            options = exporting.Options(
                format, names, _path(out), fold, quantize, calibration, calibration_images, calibration_split,
                verify, split, arguments.place(data, "data"), _path(runtime, "runtime"), card,
            )  # fmt: skip
            given = of_python(options)
            return exporting.export(self._trained, self.workdir, options, given, _say(progress))

    def compress(
        self,
        out: Place = "",
        *,
        method: Literal["deep", "filters", "share"] = "deep",
        split: Literal["train", "val", "test"] = "val",
        data: Place = "",
        conv_bits: int = 8,
        dense_bits: int = 5,
        layer_bits: Mapping[str, int] | None = None,
        sparsity: float = 0.0,
        prune_epochs: float = 6.0,
        prune_rate: float = 0.3,
        tune_epochs: float = 2.0,
        tune_rate: float = 1e-4,
        keep: float = 0.5,
        by: Literal["l1", "norm"] = "l1",
        scope: Literal["layer", "global"] = "layer",
        layer_keep: Mapping[str, float] | None = None,
        seconds: float = 1.0,
        card: bool = True,
        progress: bool = True,
    ) -> "Compressed":
        """Compress the network and measure what it costs, as `python -m jaxcnn.compress` does.

        Args:
          out: the file of "deep", by default `<step>.jxc` in the workdir; the folder of the new run of "filters" and
            "share", for `jaxcnn.load`.
          method: "deep", Deep Compression; "filters", fewer channels; "share", shared values to train on.
          split: the split of the figures.
          data: where the data of the run is now, if it has moved.
          conv_bits, dense_bits, layer_bits: bits of the shared values of convolutions, of dense layers, and of single
            kernels by patterns of their whole path.
          sparsity: above 0, "deep" first prunes this share of the weights and trains, then trains the shared values, by
            two runs in `workdir / "deep"`, which the same call continues after an interrupt.
          prune_epochs, prune_rate: length of the first of these trainings, and its peak rate over that of the run.
          tune_epochs, tune_rate: length of the second one (0: none), and its peak rate.
          keep, layer_keep: share of the filters that "filters" keeps, and this share of single layers by patterns.
          by, scope: how "filters" ranks them ("l1" or "norm"), and among which ("layer" or "global").
          seconds: time for measuring each batch size, for "filters".
          card: write a model card beside the file, or into the folder.
          progress: whether to print what is done.

        Returns:
          The `path`, a `table` of what was measured, and the `figures` as numbers.

        Raises:
          UserError: the arguments do not go together, or the network cannot be compressed so.
        """
        from jaxcnn.compress import compressing

        with python_words():
            options = compressing.Options(
                method, _path(out), split, arguments.place(data, "data"), conv_bits, dense_bits,
                _of_layers(layer_bits, "layer_bits"), sparsity, prune_epochs, prune_rate, tune_epochs, tune_rate,
                keep, by, scope, _of_layers(layer_keep, "layer_keep"), seconds, card,
            )  # fmt: skip
            given = of_python(options)
            for name in ("sparsity", *compressing.OF_TRAINING):
                arguments.number(name, getattr(options, name), 0, whole=False)
            run = functools.partial(_train, progress)
            return compressing.compress(self._trained, self.workdir, options, given, [_CALL], _say(progress), run)

    def latency(
        self,
        file: Place = "",
        *,
        batches: Sequence[int] = (1, 8, 32, 256),
        seconds: float = 3.0,
        threads: int = 0,
        runtime: Literal["onnxruntime", "jax"] = "onnxruntime",
    ) -> Records:
        """Time the network, or a file of it, for each batch size; a record for each.

        `python -m jaxcnn.latency` does this in a process of its own, which also tells the cold start and the memory.

        Args:
          file: a file of `export` or `compress`; empty: the run itself, in JAX.
          batches: batch sizes.
          seconds: time for measuring each batch size; at least 20 calls are made.
          threads: threads of ONNX Runtime and LiteRT, for .onnx and .tflite; 0: one per core.
          runtime: the program that runs a .onnx file.

        Returns:
          Records with "batch", "first" (the first call), "calls", "p50", "p95", "p99", all in seconds, and
          "images_per_second".

        Raises:
          UserError: there is no such network, a batch size is not a positive number, or an argument has no effect.
        """
        from jaxcnn.deploy import latency, runtimes

        with python_words():
            batches = arguments.several("batches", batches, "a list of batch sizes")
            latency.check_batches(batches)
            arguments.number("seconds", seconds, 0, whole=False)
            arguments.number("threads", threads, 0)
            if runtime not in ("onnxruntime", "jax"):
                raise UserError(f"runtime must be 'onnxruntime' or 'jax', not {runtime!r}")
            path = pathlib.Path(_path(file, "file")) if file else None
            kind = path.suffix if path else ""
            if runtime == "jax" and kind != runtimes.ONNX:
                raise UserError(f"runtime is for a {runtimes.ONNX} file; leave it out")
            if threads and (runtime == "jax" or kind not in (runtimes.ONNX, runtimes.LITE)):
                raise UserError(
                    f"threads is for a file in ONNX Runtime ({runtimes.ONNX}) or LiteRT ({runtimes.LITE}); others take "
                    "all cores of this process; leave it out"
                )
            found = runtimes.of_file(path, threads, runtime == "jax") if path else runtimes.of_run(self._trained())
            timings = latency.measure(found, sorted(set(batches)), seconds)
        return Records(latency.record(each) for each in timings)

    def serve(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        file: Place = "",
        batch: int = 32,
        max_wait_ms: float = 2.0,
        max_requests: int = 256,
        token: str = "",
    ) -> "Running":
        """Answer images over HTTP in a thread of this process, for notebooks and tests; `close()` ends it.

        `python -m jaxcnn.serve` is for everything else: there, one process does nothing but answer.

        Args:
          port: the port, to 65535; 0: a free one, which `address` of the result tells.
          host: the address to listen on.
          file: an exported file that answers in place of the run.
          batch: most images in a batch, to 1024.
          max_wait_ms: most milliseconds that an image waits for others.
          max_requests: most images under way at once.
          token: what clients must send as a bearer token; empty: nothing.

        Returns:
          The server, once it answers.

        Raises:
          UserError: the port is taken, a number is out of its range, or the extra `serve` is not installed.
        """
        extras.need("serve", "serve")
        from jaxcnn.deploy import runtimes
        from jaxcnn.serve import connections, models, running
        from jaxcnn.serve.app import Interface, Limits
        from jaxcnn.serve.service import Service

        with python_words():
            arguments.number("batch", batch, 1, models.MOST_BATCH)
            arguments.number("max_requests", max_requests, 1)
            arguments.number("port", port, 0, models.MOST_PORT)
            arguments.number("max_wait_ms", max_wait_ms, 0, whole=False)
            with contextlib.ExitStack() as stack:
                sockets = [stack.enter_context(each) for each in connections.taken(host, port)]
                answering = runtimes.of_file(pathlib.Path(_path(file, "file"))) if file else None
                service = Service(self._trained(), batch, file=answering)
                service.warm_up()
                wait, images = max_wait_ms / 1000, min(64, max_requests)
                limits = Limits(requests=max_requests, wait=wait, token=token, images=images)
                interface = Interface({models.name_of(self.workdir.resolve().name): service}, limits)
                found = running.Running(interface, sockets, limits.seconds, max_requests)
                stack.pop_all()  # the server closes them
                return found


def _train(progress: bool, config: "Config", folder: pathlib.Path) -> None:
    """Train a run that a method makes in the folder of its own run, or continue it."""
    from jaxcnn.train import loop
    from jaxcnn.train.hooks import Hooks

    output = None if progress else io.StringIO()
    objects.remember(folder, config)
    hooks = Hooks(output=output, progress_lines=progress, where="the same call continues")
    loop.train(config, folder, command=[_CALL], hooks=hooks)


def _path(place: Place, name: str = "out") -> str:
    return str(arguments.path(place, name)) if place else ""


def _of_layers(given: Any, name: str) -> tuple[tuple[str, Any], ...]:
    """The values of layers by their names, as pairs."""
    if given is not None and not isinstance(given, Mapping):
        raise UserError(f"{name} must be a mapping from layers to numbers, not of type {type(given).__name__}")
    return tuple((given or {}).items())


def _say(progress: bool) -> Callable[[str], None]:
    return print if progress else _silent


def _silent(line: str) -> Any:
    """Drop a line that would be printed."""
