"""Tests weights of other libraries as they are.

    python -m benchmarks.given_weights --weights=weights --cifar10=cifar10.npz --photos=photos \\
        --out=results/given_weights

Looks in the folder, at any depth, for the files of `known_weights.KNOWN`. Each is loaded as
`config.init.source=file:…` loads it, so an array too many or too few is an error, and its parameters are counted.
CIFAR's networks are evaluated on all test images of CIFAR-10. Those of ImageNet are evaluated on photos: `--photos` is
a folder with the folders `train` and `test`, each with one folder for each of the 1,000 classes, in ImageNet's order by
name; only `test` is read. `--only=resnet20` chooses some. Writes <out>.json and <out>.md after each network.
"""

import pathlib

from absl import flags

from benchmarks import report
from benchmarks.known_weights import KNOWN, Known, find, markdown, measured, told
from jaxcnn import command
from jaxcnn.config import UserError

WEIGHTS = command.define_path("weights", "", "Folder with the files of weights.")
CIFAR10 = command.define_path("cifar10", "", "CIFAR-10 as one npz file; default: no network is tested on images.")
PHOTOS = command.define_path(
    "photos", "", "Folder of photos of ImageNet's classes; default: no network is tested on them."
)
ONLY = flags.DEFINE_list("only", [], "Names of networks; default: all.")
OUT = command.define_path("out", "results/given_weights", "The files to write, without .json and .md.")
SECTION = "given_weights"


def main() -> int:
    """Test the weights that the flags choose; return the exit code."""
    out = report.check_out(OUT.value)
    if unknown := set(ONLY.value) - KNOWN.keys():
        raise UserError(f"--only={','.join(sorted(unknown))}: there are {', '.join(KNOWN)}")
    found = {name: path for name in ONLY.value or KNOWN if (path := find(pathlib.Path(WEIGHTS.value), KNOWN[name]))}
    if not found:
        raise UserError(f"--weights={WEIGHTS.value} has no file of {', '.join(ONLY.value or KNOWN)}")
    from benchmarks import jaxcnn_tasks

    record = report.provenance("benchmarks.given_weights", {"jaxcnn": jaxcnn_tasks.facts()}) | {"networks": {}}
    for name, path in found.items():
        of_each = measured(name, KNOWN[name], path, tested_on(KNOWN[name]))
        record["networks"][name] = of_each
        print(f"{name}: {told(KNOWN[name], of_each)}", flush=True)
        report.write(out, SECTION, record, markdown(record))
    return 0


def tested_on(known: Known) -> str:
    """The source of test images that the flags give for these weights; empty: none."""
    if known.accuracy is None:
        return f"folder:{PHOTOS.value}" if PHOTOS.value else ""
    return f"npz:{CIFAR10.value}" if CIFAR10.value else ""


if __name__ == "__main__":
    command.run(main)
