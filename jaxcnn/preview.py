"""See the augmentation of a config: `python -m jaxcnn.preview --config=configs/vgg16_cifar10.py`.

Writes a contact sheet: a PNG with one row for each of a few training examples, showing the original and its augmented
forms in different training steps. Any field can be overridden, as in `--config.augment.cutmix=1.0`.

With `--workdir=<run>` in place of a config, the PNG shows what the attention layers of a trained network
(`config.model.attention`) let through, for examples of its training split.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import dataclasses
import pathlib

from absl import flags

from jaxcnn import command
from jaxcnn.command import network, unused
from jaxcnn.machine import writable
from jaxcnn.machine.extras import need

CONFIG = command.define_config("The config whose augmentation is drawn: a file of configs/, with :variant if wanted.")
NETWORK = network.define()
OUT = command.define_path("out", "preview.png", "The PNG file to write.")
EXAMPLES = flags.DEFINE_integer("examples", 8, "Rows: training examples, of different classes first.", lower_bound=1)
DRAWS = flags.DEFINE_integer("draws", 8, "Columns: augmentations of each example, one for each step.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", None, "Chooses examples and augmentations. Default: config.seed.", lower_bound=0)


def main() -> int:
    """Draw the sheet given by the flags; return the exit code."""
    if NETWORK.workdir.value:
        return _attention()
    unused.refuse(("checkpoint", "weights"), "is for --workdir")
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


def _attention() -> int:
    """Draw what the attention layers of a run let through."""
    unused.refuse(("config", "draws"), "is for augmentation, and --workdir shows attention")
    out = pathlib.Path(OUT.value)
    writable.check_file(out)
    need("report", "the picture", "matplotlib")
    from jaxcnn.explain import attended, attention_sheet, given
    from jaxcnn.explain.subject import Subject
    from jaxcnn.text import save_picture

    subject = Subject(NETWORK.load())
    attended.choose(subject.gates, "")  # before the data is read
    images = given.of_split(subject, "train", EXAMPLES.value, SEED.value or 0)
    save_picture(attention_sheet.of_run(subject, images), out, format="png", dpi=150)
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    command.run(main)
