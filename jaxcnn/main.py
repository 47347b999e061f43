"""Train, evaluate or use a network.

    python -m jaxcnn.main --config=configs/vgg16_cifar10.py [--config.<key>=<value>] [--workdir=<folder>]
    python -m jaxcnn.main --mode=eval --workdir=<folder>
    python -m jaxcnn.main --mode=predict --workdir=<folder> --images=<file or folder>,…
    python -m jaxcnn.main --mode=eval --workdir=<folder> --ensemble=<folder>,…
    python -m jaxcnn.main --mode=embed --workdir=<folder> --split=train --out=<file>.npz
    python -m jaxcnn.main --mode=embed --workdir=<folder> --images=<file or folder>,… --among=<file>.npz --neighbours=5

Exit codes: 0 done; 2 an error, reported in one line; 3 the loss was not finite; 75 stopped by a signal, resumable.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import dataclasses
import datetime
import itertools
import json
import pathlib
import sys
import time
from typing import TYPE_CHECKING

from absl import flags

from jaxcnn import command
from jaxcnn.command import network as chosen
from jaxcnn.command import output, unused
from jaxcnn.config import Config, UserError, flatten, to_dict
from jaxcnn.data import place
from jaxcnn.machine import hosts, malloc, writable
from jaxcnn.machine.paths import expand, separate
from jaxcnn.text import shown

if TYPE_CHECKING:
    from jaxcnn.train.ensemble import Ensemble
    from jaxcnn.train.trained import Trained

STARTED = time.monotonic()
CONFIG = command.define_config("The run: a file of configs/, with :variant if wanted (mode train).")
WORKDIR = command.define_path(
    "workdir", None, "Folder of the run. Train: a run with checkpoints is resumed; default: a new folder in runs/."
)
ENSEMBLE = flags.DEFINE_multi_string(
    "ensemble",
    [],
    "eval, predict: workdirs of more runs, separated by commas; probabilities are averaged with those of --workdir.",
)
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval", "predict", "embed"], "What to do.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "tested",
    f"eval, predict, embed: {chosen.CHECKPOINT[0].lower()}{chosen.CHECKPOINT[1:]}",
)
WEIGHTS = flags.DEFINE_enum(
    "weights",
    "",
    ["", "last", "ema"],
    "eval, predict, embed: weights of the step, or their moving average; default: the average if it is kept.",
)
DEVICES = flags.DEFINE_integer(
    "devices", 0, "eval, predict, embed: how many local devices to use; 0: all.", lower_bound=0
)
SPLIT = flags.DEFINE_enum(
    "split",
    "test",
    ["train", "val", "test"],
    "eval: the split to evaluate on; embed: the images, in place of --images.",
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "eval: batch size; 0: as in training.", 0, 2**31 - 1)
DATA = command.define_path(
    "data",
    "",
    "train, eval, embed: path of the data, in place of the path in config.data.source (TFDS: config.data.dir).",
)
DATA_DIR = command.define_path("data_dir", "", "eval: the same as --data.")
IMAGES = flags.DEFINE_multi_string(
    "images", [], "predict, embed: image files and folders, separated by commas, or each in a separate flag."
)
ON_ERROR = flags.DEFINE_enum(
    "on_error", "raise", ["raise", "skip"], "predict, embed: what to do with an unreadable image."
)
JSON = command.define_path(
    "json",
    "",
    "eval, predict, embed (neighbours): also write the results as JSON to this file; '-': only to standard output.",
)
OUT = command.define_path(
    "out",
    "",
    "predict: also write the results to this file, by its extension: .csv, .json, .png with the images, or .html, a "
    "page of them with a choice of scores and classes; embed: the file of features, .npz or .parquet.",
)
LAYER = flags.DEFINE_string(
    "layer", "", "embed: the layer whose output is taken; default: the input of the layer that makes the outputs."
)
NEIGHBOURS = flags.DEFINE_integer(
    "neighbours", 0, "embed: also tell this many nearest images of each, by cosine similarity.", 0, 10**6
)
AMONG = command.define_path("among", "", "embed: an .npz of --mode=embed, in which --neighbours are looked for.")

OF_MODES = {
    "config": ("train",),
    "data": ("train", "eval", "embed"),
    "data_dir": ("eval",),
    "batch_size": ("eval",),
    "split": ("eval", "embed"),
    "ensemble": ("eval", "predict"),
    **dict.fromkeys(("images", "on_error", "out"), ("predict", "embed")),
    **dict.fromkeys(("layer", "neighbours", "among"), ("embed",)),
    **dict.fromkeys(("checkpoint", "weights", "devices", "json"), ("eval", "predict", "embed")),
}


def main() -> int:
    """Run the mode given by the flags; return the exit code."""
    _check_mode()
    _check_files()
    return {"train": _train, "eval": _evaluate, "predict": _predict, "embed": _embed}[MODE.value]()


def _train() -> int:
    config = command.read_config(CONFIG)
    config = dataclasses.replace(config, data=place.at(config.data, DATA.value))
    cluster = hosts.join(config.hosts, fingerprint=_must_be_equal(config), run=WORKDIR.value or "")
    from jaxcnn.learn import executables
    from jaxcnn.train.interrupts import INTERRUPTED, Interrupted
    from jaxcnn.train.loop import train

    executables.keep()
    interrupts = command.interrupts()
    try:
        folder = pathlib.Path(cluster.of_first(lambda: str(_new_workdir())))
        arguments = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
        interrupts.enter("finish")  # the phase after the end of the run
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
    """The config values that must be equal in all processes; otherwise they would deadlock."""
    own = ("hosts.", "data.dir", "data.workers")
    alike = {key: value for key, value in flatten(to_dict(config)).items() if not key.startswith(own)}
    if (kind := place.kind(config.data.source)) in place.PLACED:
        alike["data.source"] = kind  # the location may differ per process; checksums show whether data is equal
    return alike


def _evaluate() -> int:
    folder = _existing_workdir()
    from jaxcnn.train import assess

    network = _load(folder)
    if ENSEMBLE.value:
        return _evaluate_ensemble(folder, network)
    figures = assess.assess(network, folder, SPLIT.value, DATA.value or DATA_DIR.value, BATCH_SIZE.value)
    if not _write_json(figures):
        print(*map(output.fitting, assess.describe(network, figures)), sep="\n")
        stem = f"eval-{figures['split']}-{figures['step']}"
        if assess.is_kept(folder, figures):
            beside = "".join(f", {path.name}" for path in assess.pictures(folder, figures))
            print(output.fitting(f"{folder}/{stem}.json{beside}"))
    return 0


def _evaluate_ensemble(folder: pathlib.Path, network: "Trained") -> int:
    from jaxcnn.train import assess, ensemble

    several = _ensemble(folder, network)
    ensemble.check_split(several, SPLIT.value)
    split, notes = assess.open_split(network, folder, SPLIT.value, DATA.value or DATA_DIR.value)
    _say(*notes)
    figures = several.evaluate(split, BATCH_SIZE.value)
    if not _write_json(figures):
        print(*map(output.fitting, several.describe(figures)), sep="\n")
    return 0


def _ensemble(folder: pathlib.Path, network: "Trained") -> "Ensemble":
    """The network of --workdir with those of --ensemble."""
    from jaxcnn.train import ensemble

    folders = [expand(place, "--ensemble=") for value in ENSEMBLE.value for place in separate(value)]
    return ensemble.of([folder, *folders], [network, *map(_load, folders)])


def _predict() -> int:
    folder = _existing_workdir()
    places = [place for value in IMAGES.value for place in separate(value)]
    if not places:
        raise UserError("--mode=predict needs --images=<file or folder>,…")
    from jaxcnn.train import predict

    paths, notes = predict.find_images(places)
    _say(*notes)
    network = _load(folder)
    answer = _ensemble(folder, network).answers if ENSEMBLE.value else None
    results = predict.predict(network, paths, skip_unreadable=ON_ERROR.value == "skip", answer=answer)
    if (out := pathlib.Path(OUT.value)).suffix.lower() == ".png":
        _say(*predict.draw(network, results, out))
    elif out.suffix.lower() == ".html":
        _say(*predict.write_page(network, results, out, folder))
    elif OUT.value:
        predict.write(network.spec.task.evaluation, results, out, predict.as_json(network, results))
    if not _write_json(predict.as_json(network, results)):
        for result in results:
            if "error" in result:
                print(f"{shown(result['file'])}: unreadable: {shown(result['error'])}")
            else:
                print(f"{shown(result['file'])}: {predict.in_words(result, network.spec.task.finds)}")
    return 0


def _embed() -> int:
    folder = _existing_workdir()
    places = [place for value in IMAGES.value for place in separate(value)]
    if places and flags.FLAGS["split"].present:
        raise UserError("--mode=embed takes --images or --split, not both")
    if not (OUT.value or NEIGHBOURS.value):
        raise UserError("--mode=embed needs --out=<file>.npz (or .parquet), or --neighbours=<number>")
    if AMONG.value and not NEIGHBOURS.value:
        raise UserError("--among is for --neighbours=<number>")
    from jaxcnn.train import assess, features, predict

    among = features.read(pathlib.Path(AMONG.value)) if AMONG.value else None
    paths, notes = predict.find_images(places) if places else ([], [])
    network = _load(folder)
    if places:
        found = features.of_files(network, paths, LAYER.value, skip_unreadable=ON_ERROR.value == "skip")
    else:
        split, notes = assess.open_split(network, folder, SPLIT.value, DATA.value)
        found = features.of_split(network, split, LAYER.value)
    _say(*notes)
    if OUT.value:
        features.write(found, pathlib.Path(OUT.value))
        _say(f"{OUT.value}: {found.values.shape[1]} features of {len(found.names)} images")
    if NEIGHBOURS.value:
        results = features.neighbours(found, among or found, NEIGHBOURS.value)
        if not _write_json(results):
            print(*map(features.in_words, results), sep="\n")
    return 0


def _load(folder: pathlib.Path) -> "Trained":
    """The trained network chosen by the flags; prints its notes."""
    from jaxcnn.learn import executables
    from jaxcnn.train import trained

    executables.keep()
    network, remarks = trained.load(folder, CHECKPOINT.value, WEIGHTS.value, DEVICES.value)
    _say(*remarks)
    malloc.keep()
    return network


def _new_workdir() -> pathlib.Path:
    """The requested workdir, or a new one named after the config and the time.

    A new one is created here, so that no other start in the same second takes it, too.
    """
    if WORKDIR.value:
        return pathlib.Path(WORKDIR.value)
    name = f"{command.config_name(flags.FLAGS)}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for number in itertools.count(1):
        folder = pathlib.Path("runs") / (f"{name}-{number}" if number > 1 else name)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if folder.exists():
                continue
        except OSError:
            pass  # the code that takes the workdir reports why it cannot be created
        return folder
    raise AssertionError("there is always a next number")


def _existing_workdir() -> pathlib.Path:
    if not WORKDIR.value:
        raise UserError(f"--mode={MODE.value} needs --workdir=<folder of a run>")
    return pathlib.Path(WORKDIR.value)


def _check_mode() -> None:
    """Refuse flags that the mode does not use."""
    unused.refuse_beside("mode", MODE.value, OF_MODES, {"config": "; it uses the config in --workdir"})


def _check_files() -> None:
    """Refuse a --json or --out that is not writable, before any work is done."""
    for flag, value in (("json", JSON.value), ("out", OUT.value)):
        if value and (flag, value) != ("json", "-"):
            writable.check_file(pathlib.Path(value), flag)
    if OUT.value and MODE.value == "embed":
        from jaxcnn.train import features

        features.check(pathlib.Path(OUT.value))
    elif OUT.value and pathlib.Path(OUT.value).suffix.lower() not in (".csv", ".json", ".png", ".html"):
        raise UserError(f"--out={OUT.value} must end in .csv, .json or .png, or in .html for a page")
    elif ENSEMBLE.value and OUT.value.lower().endswith((".png", ".html")):
        raise UserError(f"--out={OUT.value} shows the answers of one network; with --ensemble it ends in .csv or .json")


def _write_json(value: object) -> bool:
    """Write the results to --json; return whether that is standard output, which then gets nothing else."""
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
