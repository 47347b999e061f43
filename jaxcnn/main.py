"""Train, evaluate or use a network: `python -m jaxcnn.main --config=configs/vgg16_cifar10.py`."""

import datetime
import pathlib
import sys
import time

from absl import flags

from jaxcnn import command
from jaxcnn.config import UserError

STARTED = time.time()
CONFIG = command.define_config("The run: a file of configs/, with :variant if wanted.")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; one with checkpoints is resumed. Default: runs/<new>."
)
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval", "predict"], "What to do.")


def main() -> int:
    """Do what the flags say; return the exit code."""
    if MODE.value == "train":
        return _train()
    raise UserError(f"--mode={MODE.value} is not there yet")


def _train() -> int:
    config = command.read_config(CONFIG)
    from jaxcnn.train.loop import train
    from jaxcnn.train.signals import INTERRUPTED, Interrupted

    try:
        train(config, _workdir(), command=[pathlib.Path(sys.argv[0]).name, *sys.argv[1:]], started=STARTED)
    except Interrupted as error:
        print(f"jaxcnn: {error}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _workdir() -> pathlib.Path:
    """The workdir asked for, or a new one named after the config and the time."""
    if WORKDIR.value:
        return pathlib.Path(WORKDIR.value)
    file = command.config_name(flags.FLAGS)
    return pathlib.Path("runs") / f"{file}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


if __name__ == "__main__":
    command.run(main)
