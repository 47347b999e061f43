"""See the augmentation of a config: `python -m jaxcnn.preview --config=configs/vgg16_cifar10.py`.

Writes a contact sheet: a PNG with one row for each of a few training examples, showing the original and its augmented
forms in different training steps. Any field can be overridden, as in `--config.augment.cutmix=1.0`.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import dataclasses
import pathlib

from absl import flags

from jaxcnn import command
from jaxcnn.machine import writable
from jaxcnn.machine.extras import need

CONFIG = command.define_config("The config whose augmentation is drawn: a file of configs/, with :variant if wanted.")
OUT = command.define_path("out", "preview.png", "The PNG file to write.")
EXAMPLES = flags.DEFINE_integer("examples", 8, "Rows: training examples, of different classes first.", lower_bound=1)
DRAWS = flags.DEFINE_integer("draws", 8, "Columns: augmentations of each example, one for each step.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", None, "Chooses examples and augmentations. Default: config.seed.", lower_bound=0)


def main() -> int:
    """Draw the sheet given by the flags; return the exit code."""
    config = command.read_config(CONFIG)
    if SEED.value is not None:
        config = dataclasses.replace(config, seed=SEED.value)
    out = pathlib.Path(OUT.value)
    writable.check_file(out)
    need("report", "the picture", "matplotlib")
    from jaxcnn.data.source import open_splits
    from jaxcnn.text import save_picture
    from jaxcnn.train import contact_sheet

    splits = open_splits(config.data, config.task)
    sheet = contact_sheet.draw_sheet(config, splits.train, splits.kind, EXAMPLES.value, DRAWS.value)
    save_picture(sheet, out, format="png", dpi=contact_sheet.DPI)
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    command.run(main)
