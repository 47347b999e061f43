"""Show the layers of a network: `python -m jaxcnn.summary --config=vgg16_cifar10`.

Prints parameters, floating-point operations of one image, and memory of the outputs for a batch, layer by layer.
Nothing is computed. The images are those of the config's data, which is opened, unless `--image` and `--classes` are
given.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import re

from absl import flags

from jaxcnn import command
from jaxcnn.command import output
from jaxcnn.config import UserError

CONFIG = command.define_config("The config whose network is shown: a file or name, with :variant if wanted.")
IMAGE = flags.DEFINE_string("image", "", "Height x width x channels of the images, such as 224x224x3; opens no data.")
CLASSES = flags.DEFINE_integer("classes", 0, "Number of classes, with --image.", lower_bound=0)


def main() -> int:
    """Print the table of the network given by the flags; return the exit code."""
    config = command.read_config(CONFIG)
    shape = _shape(IMAGE.value)
    if shape is not None and not (CLASSES.value or config.model.num_classes):
        raise UserError("give the number of classes too, since --image opens no data: --classes=<number>")
    from jaxcnn.api.model_table import summary
    from jaxcnn.machine import mesh

    mesh.prepare_backend()
    print(output.fitting(str(summary(config, shape, CLASSES.value))))
    return 0


def _shape(text: str) -> tuple[int, int, int] | None:
    if not text:
        return None
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,2})", text)
    if sides is None:
        raise UserError(f"--image={text} must be height x width x channels, such as 32x32x3")
    height, width, channels = map(int, sides.groups())
    return height, width, channels


if __name__ == "__main__":
    command.run(main)
