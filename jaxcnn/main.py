"""Train, evaluate or use a network.

    python -m jaxcnn.main --config=configs/vgg16_cifar10.py [--config.<key>=<value>] [--workdir=<folder>]
    python -m jaxcnn.main --mode=eval --workdir=<folder>
    python -m jaxcnn.main --mode=predict --workdir=<folder> --images=<file or folder>,…

Exit codes: 0 done; 2 a mistake, told in one line; 3 the loss was not finite; 75 stopped by a signal, resumable.
"""

from jaxcnn import at_start  # noqa: F401 (first of all: from here on a signal is told in one line)

# isort: split

import datetime
import json
import pathlib
import sys
import time
from typing import TYPE_CHECKING

from absl import flags

from jaxcnn import command, host_memory, hosts, output
from jaxcnn.config import Config, UserError, flatten, to_dict

if TYPE_CHECKING:
    from jaxcnn.train.trained import Trained

STARTED = time.time()
CONFIG = command.define_config("The run: a file of configs/, with :variant if wanted (mode train).")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run. Train: one with checkpoints is resumed; default: a new one in runs/."
)
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval", "predict"], "What to do.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "last", "eval, predict: last, best (on validation) or a step.")
WEIGHTS = flags.DEFINE_enum(
    "weights", "", ["", "last", "ema"], "eval, predict: of the step, or their moving average; default: that if kept."
)
DEVICES = flags.DEFINE_integer("devices", 0, "eval, predict: how many local devices to use; 0: all.", lower_bound=0)
SPLIT = flags.DEFINE_enum("split", "test", ["train", "val", "test"], "eval: which split.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "eval: examples at a time; 0: as in training.", lower_bound=0)
DATA_DIR = flags.DEFINE_string("data_dir", "", "eval: where TFDS sets are, if not where the run had them.")
IMAGES = flags.DEFINE_list("images", [], "predict: image files and folders.")
ON_ERROR = flags.DEFINE_enum("on_error", "raise", ["raise", "skip"], "predict: what to do with an unreadable image.")
JSON = flags.DEFINE_string("json", "", "eval, predict: also write the results to this file; '-': standard output only.")


def main() -> int:
    """Do what the flags say; return the exit code."""
    _check_json()
    return {"train": _train, "eval": _evaluate, "predict": _predict}[MODE.value]()


def _train() -> int:
    config = command.read_config(CONFIG)
    cluster = hosts.join(config.hosts, fingerprint=_must_be_equal(config), run=WORKDIR.value or "")
    from jaxcnn.learn import executables
    from jaxcnn.train.interrupts import INTERRUPTED, Interrupted
    from jaxcnn.train.loop import train

    executables.keep()
    interrupts = command.interrupts()
    try:
        folder = pathlib.Path(cluster.of_first(lambda: str(_new_workdir())))
        arguments = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
        interrupts.enter("finish")  # which it does once the run is through
        train(config, folder, command=arguments, started=STARTED, cluster=cluster, interrupts=interrupts)
    except Interrupted as error:
        cluster.end()
        print(f"jaxcnn: {error}", file=sys.stderr)
        return INTERRUPTED
    except BaseException as error:
        cluster.fail(error, command.exit_code(error))
        raise
    cluster.end()
    return 0


def _must_be_equal(config: Config) -> dict[str, object]:
    """What of a config the processes of a run must have alike, or they would wait for each other for ever."""
    own = ("hosts.", "data.dir", "data.workers")
    return {key: value for key, value in flatten(to_dict(config)).items() if not key.startswith(own)}


def _evaluate() -> int:
    folder = _existing_workdir()
    from jaxcnn.train import assess

    network = _load(folder)
    figures = assess.assess(network, folder, SPLIT.value, DATA_DIR.value, BATCH_SIZE.value)
    if not _write_json(figures):
        print(*assess.describe(figures), sep="\n")
        stem = f"eval-{figures['split']}-{figures['step']}"
        print(f"{folder}/{stem}.json, {stem}.png (confusion matrix)")
    return 0


def _predict() -> int:
    folder = _existing_workdir()
    if not IMAGES.value:
        raise UserError("--mode=predict needs --images=<file or folder>,…")
    from jaxcnn.train import predict

    paths = predict.find_images(IMAGES.value)
    network = _load(folder)
    results = predict.predict(network, paths, skip_unreadable=ON_ERROR.value == "skip")
    if not _write_json(results):
        for result in results:
            if "error" in result:
                print(f"{result['file']}: unreadable: {result['error']}")
            else:
                top = ", ".join(f"{t['label']} {100 * t['probability']:.1f}%" for t in result["top"][:3])
                print(f"{result['file']}: {top}")
    return 0


def _load(folder: pathlib.Path) -> "Trained":
    """The trained network that the flags choose; what there is to say of it is said."""
    from jaxcnn.learn import executables
    from jaxcnn.train import trained

    executables.keep()
    network, remarks = trained.load(folder, CHECKPOINT.value, WEIGHTS.value, DEVICES.value)
    _say(*remarks)
    host_memory.keep()
    return network


def _new_workdir() -> pathlib.Path:
    """The workdir asked for, or a new one named after the config and the time."""
    if WORKDIR.value:
        return pathlib.Path(WORKDIR.value)
    return pathlib.Path("runs") / f"{command.config_name(flags.FLAGS)}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _existing_workdir() -> pathlib.Path:
    if not WORKDIR.value:
        raise UserError(f"--mode={MODE.value} needs --workdir=<folder of a run>")
    return pathlib.Path(WORKDIR.value)


def _check_json() -> None:
    """Refuse a --json that could not be written, before any work is done."""
    path = pathlib.Path(JSON.value)
    if JSON.value not in ("", "-") and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(
            f"--json={path} cannot be written: {'it' if path.is_dir() else path.parent} is "
            f"{'a folder' if path.is_dir() else 'no folder'}"
        )


def _write_json(value: object) -> bool:
    """Write the results where --json says; return whether that was standard output, which then has nothing else."""
    if JSON.value == "-":
        print(json.dumps(value, indent=2), flush=True)
        if lost := output.failure():
            raise UserError(f"--json=-: standard output could not be written: {lost.strerror}")
    elif JSON.value:
        pathlib.Path(JSON.value).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return JSON.value == "-"


def _say(*lines: str) -> None:
    for line in lines:
        print(f"jaxcnn: {line}", file=sys.stderr)


if __name__ == "__main__":
    command.run(main)
