"""Write the weights of a run to a file that other libraries read.

    python -m jaxcnn.export --workdir=runs/resnet50 --format=safetensors --names=torchvision [--out=<file>]

The names and layouts of the arrays are those of torchvision, timm, Keras or of jaxcnn. The metadata of the file has the
names of the classes, the mean and std of the images, their size, and the epsilon of BatchNorm. `config.init.source=
file:<path>` reads it again, to the bit.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import pathlib

from absl import flags

from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import extras
from jaxcnn.machine.paths import expand

WORKDIR = command.define_path("workdir", None, "Folder of the run.")
FORMAT = flags.DEFINE_enum("format", "safetensors", ["safetensors"], "Format of the file.")
NAMES = flags.DEFINE_enum(
    "names", "torchvision", ["jaxcnn", "torchvision", "timm", "keras", "caffe", "lukemelas"], "Whose names and layouts."
)
OUT = command.define_path("out", "", "The file; default: <names>.safetensors in the workdir.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "last", "The checkpoint: last, best (on validation) or a step.")
WEIGHTS = flags.DEFINE_enum(
    "weights", "", ["", "last", "ema"], "Weights of the step, or their average; default: the average if it is kept."
)


def main() -> int:
    """Write the file; return the exit code."""
    if not WORKDIR.value:
        raise UserError("--workdir=<folder of a run> is missing")
    extras.need("safetensors", "--format=safetensors")
    folder = expand(WORKDIR.value)
    out = pathlib.Path(OUT.value) if OUT.value else folder / f"{NAMES.value}.safetensors"
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"--out={out} cannot be written: {out if out.is_dir() else out.parent} is no place for a file")
    from jaxcnn.train import exported, trained

    network, remarks = trained.load(folder, CHECKPOINT.value, WEIGHTS.value, 1)
    for remark in remarks:
        print(f"jaxcnn: {remark}")
    count = exported.write(network, NAMES.value, out)
    print(f"jaxcnn: {out}: {count} arrays of step {network.step} ({network.weights} weights), names of {NAMES.value}")
    return 0


if __name__ == "__main__":
    command.run(main)
