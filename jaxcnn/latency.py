"""Measure how long a trained network takes to answer: a run, or a file of jaxcnn.export.

    python -m jaxcnn.latency --workdir=runs/resnet50
    python -m jaxcnn.latency --file=resnet50.onnx --threads=1
    python -m jaxcnn.latency --file=resnet50.jxc

For each batch size: the first call, which compiles, then the times that 50, 95 and 99 % of the calls do not exceed.
Also the seconds from the start of this process to its first answer, and the most memory that it had. Each command
times one thing, so that neither of these counts another. Images are random, or those of --images, and in memory:
decoding is not timed. Of a detector, suppression is part of the answer; --nofinding times the network alone.

The figures of a run, and of a file in the folder of its run, are also kept there, as latency-<what>-<machine>.json,
for the report: `python -m jaxcnn.report` draws accuracy over latency and size.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import dataclasses
import json
import os
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.command import output, unused
from jaxcnn.config import UserError
from jaxcnn.machine import cores, whole_files, writable
from jaxcnn.machine.paths import separate

if TYPE_CHECKING:
    import numpy as np

    from jaxcnn.train.trained import Trained

NETWORK = chosen.define()
FILE = command.define_path(
    "file", "", "A file of jaxcnn.export or jaxcnn.compress, or a SavedModel, in place of --workdir."
)
RUNTIME = flags.DEFINE_enum("runtime", "onnxruntime", ["onnxruntime", "jax"], "Runtime for a .onnx file.")
BATCHES = flags.DEFINE_list("batches", ["1", "8", "32", "256"], "Batch sizes.")
SECONDS = flags.DEFINE_float("seconds", 3.0, "Time for each batch size, at least 20 calls.", lower_bound=0.0)
THREADS = flags.DEFINE_integer("threads", 0, "Cores to use; 0: all. Linux.", lower_bound=0)
FINDING = flags.DEFINE_bool(
    "finding", True, "Of a run that finds boxes or maps: with the part of the program that finds them in the outputs."
)
IMAGES = flags.DEFINE_multi_string(
    "images", [], "Of a run: files and folders of images, in place of random ones; suppression may depend on them."
)
OUT = command.define_path("out", "", "Also write the figures to this JSON file.")


def main() -> int:
    """Measure the network given by the flags; return the exit code."""
    if bool(NETWORK.workdir.value) == bool(FILE.value):
        raise UserError("say what to time: --workdir=<folder of a run> or --file=<file of jaxcnn.export>")
    if FILE.value and (IMAGES.value or not FINDING.value):
        raise UserError(f"--{'images' if IMAGES.value else 'nofinding'} is for --workdir=<folder of a run>")
    if FILE.value:
        unused.refuse(("checkpoint", "weights"), "is for --workdir=<folder of a run>")
    if pathlib.Path(FILE.value).suffix != ".onnx":
        unused.refuse(["runtime"], "is for --file=<file>.onnx")
    if OUT.value:
        writable.check_file(pathlib.Path(OUT.value))
    _limit(THREADS.value)
    from jaxcnn.deploy import kept_figures, latency, runtimes
    from jaxcnn.machine import instructions

    latency.check_batches([int(text) if text.isdecimal() else text for text in BATCHES.value or [""]])
    images = None
    if NETWORK.workdir.value:
        network = NETWORK.load()
        runtime = runtimes.of_run(network, FINDING.value)
        if places := [place for value in IMAGES.value for place in separate(value)]:
            images = _read(network, places, max(map(int, BATCHES.value)))
    else:
        path = pathlib.Path(FILE.value)
        if path.suffix in runtimes.WEIGHTS:
            from jaxcnn.learn import executables

            executables.keep()
        runtime = runtimes.of_file(path, THREADS.value, RUNTIME.value == "jax")
        if words := runtimes.of_int8(runtime):
            print(output.fitting(f"jaxcnn: {words}"))
    answered: list[float | None] = []
    timings = latency.measure(
        runtime,
        sorted({int(text) for text in BATCHES.value}),
        SECONDS.value,
        lambda: answered.append(latency.process_seconds()),
        images,
    )
    peak = latency.peak_bytes()
    figures = {
        "runtime": runtime.name,
        "bytes": runtime.size,
        "backend": runtime.backend,
        "device": runtime.device,
        "threads": THREADS.value,
        "cores": len(cores.usable()),
        "processor": instructions.processor(),
        "reading_seconds": runtime.reading,
        "cold_start_seconds": answered[0],
        "peak_bytes": peak,
        "timings": [dataclasses.asdict(each) for each in timings],
    }
    print(
        f"{runtime.name}, {len(cores.usable())} of {os.cpu_count()} cores, {runtime.size:,} bytes",
        *latency.table(timings),
        sep="\n",
    )
    if runtime.reading:
        print(f"read and decoded in {runtime.reading:.2f} s")
    if answered[0] is not None:
        print(f"first answer {answered[0]:.2f} s after the start of the process")
    if peak is not None:
        print(f"at most {peak / 2**20:.0f} MiB of memory")
    timed = pathlib.Path(NETWORK.workdir.value or FILE.value)
    if (FILE.value or FINDING.value) and (kept := kept_figures.keep_latency(timed, figures)):
        lacks = kept_figures.missing(timed)
        print(output.fitting(f"kept in {kept}; {lacks}" if lacks else f"kept for the report in {kept}"))
    if OUT.value:
        whole_files.write(pathlib.Path(OUT.value), json.dumps(figures, indent=2) + "\n")
    return 0


def _read(network: "Trained", places: list[str], most: int) -> "np.ndarray":
    """The first `most` images of files and folders, as the network takes them."""
    import numpy as np

    from jaxcnn.train import predict

    paths, _ = predict.find_images(places)
    of_run = network.spec.image_shape, network.config.data
    try:
        return np.stack([predict.read(path, *of_run) for path in paths[:most]])
    except (predict.Unreadable, OSError) as error:
        raise UserError(f"--images={','.join(places)}: an image cannot be read: {error}") from None


def _limit(threads: int) -> None:
    """Use at most `threads` cores; called before anything starts threads."""
    if not threads:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("--threads is for Linux; leave it out")
    here = cores.usable()
    if threads > len(here):
        raise UserError(f"--threads={threads}, but this process has {len(here)} cores")
    os.sched_setaffinity(0, here[:threads])


if __name__ == "__main__":
    command.run(main)
