"""Measure input pipelines in turns: `python -m benchmarks.input`.

jaxcnn's resident and stream loaders and PyTorch's DataLoader make batches of normalised float32 images, randomly
cropped and flipped. They read two sets: pixels in memory (CIFAR-10), and JPEGs of 256 pixels, which this command makes
from the same images. Then both make plain batches of those JPEGs' pixels, as a device is fed with them: decoded as they
are read, and decoded before (`config.data.cache`, and a memory map). Writes <out>.json and a section of <out>.md.
"""

import contextlib
import pathlib
import sys
import tempfile

from absl import flags

from benchmarks import input_report, loaders, report
from benchmarks.worker import Worker, check_devices, jaxcnn_environment, start_torch
from jaxcnn import command
from jaxcnn.config import UserError

SOURCE = flags.DEFINE_string("source", "tfds:cifar10", "The set, as in config.data.source: tfds:<name> or npz:<path>.")
DATA_DIR = flags.DEFINE_string("data_dir", "", "Folder of TFDS sets; empty: the default of TFDS.")
JPEGS = flags.DEFINE_integer("jpegs", 2000, "Number of JPEGs to make from it; 0: none.", lower_bound=0)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images in a batch.", lower_bound=1)
WORKERS = flags.DEFINE_list("workers", ["0", "2"], "Numbers of workers of PyTorch's DataLoader; each is measured.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Number of turns of each loader.", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 3.0, "Approximate seconds of a turn; at least one batch.", lower_bound=0.0)
FIRST_SET = flags.DEFINE_integer("first_set", 0, "Sets before this one are left out.", lower_bound=0, upper_bound=3)
DEVICE = flags.DEFINE_enum(
    "device", "", ["", "cpu", "gpu"], "Device that receives the batches. Default: gpu if JAX finds one."
)
PEERS = flags.DEFINE_list("peers", ["jaxcnn", "torch"], "jaxcnn, or jaxcnn,torch.")
TORCH_PYTHON = flags.DEFINE_string("torch_python", sys.executable, "The interpreter that has PyTorch.")
OUT = flags.DEFINE_string("out", "results/benchmarks", "The files to write, without .json and .md.")

SECTION = "input"


def main() -> int:
    """Measure as the flags say; return the exit code."""
    out = report.check_out(OUT.value)
    if "jaxcnn" not in PEERS.value or not set(PEERS.value) <= {"jaxcnn", "torch"}:
        raise UserError(f"--peers={','.join(PEERS.value)} must be jaxcnn or jaxcnn,torch")
    if not all(number.isdigit() for number in WORKERS.value):
        raise UserError(f"--workers={','.join(WORKERS.value)} must be whole numbers")
    facts = {}
    for peer in sorted(PEERS.value, reverse=True):  # PyTorch first, because it is more likely to be missing
        with contextlib.closing(start(peer, "")) as worker:
            facts[peer] = worker.facts
    check_devices([DEVICE.value], facts)
    results = []
    with tempfile.TemporaryDirectory(prefix="jaxcnn-input-") as folder:
        sets = loaders.make_sets(pathlib.Path(folder), SOURCE.value, DATA_DIR.value, JPEGS.value)
        if JPEGS.value:
            sets += loaders.host_sets(pathlib.Path(folder), sets[-1], "torch" in PEERS.value)
        for image_set in sets[FIRST_SET.value :]:
            print(image_set.title)
            measured = loaders.loaders_of(image_set, BATCH_SIZE.value, PEERS.value, WORKERS.value)
            result = loaders.measure(
                image_set, measured, lambda peer: start(peer, DEVICE.value), ROUNDS.value, SECONDS.value
            )
            for line in input_report.lines(result):
                print(f"  {line}")
            results.append(result)
    record = report.provenance("benchmarks.input", facts)
    record |= {"rounds": ROUNDS.value, "seconds": SECONDS.value, "batch_size": BATCH_SIZE.value, "sets": results}
    for path in report.write(out, SECTION, record, input_report.markdown(record)):
        print(f"wrote {path}")
    if failed := [f["error"] for result in results for f in result["loaders"].values() if "error" in f]:
        raise UserError(f"{len(failed)} loaders failed; the first: {failed[0]}")
    return 0


def start(peer: str, device: str) -> Worker:
    """Start a worker of a peer; an empty device is the default device."""
    if peer == "torch":
        return start_torch(TORCH_PYTHON.value, "benchmarks.torch_input", device)
    return Worker("jaxcnn", sys.executable, "benchmarks.jaxcnn_input", jaxcnn_environment(device))


if __name__ == "__main__":
    command.run(main)
