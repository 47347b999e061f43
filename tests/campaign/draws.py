"""Small runs drawn at random, and their undisturbed references, which many faults share."""

import collections
import dataclasses
import hashlib
import json
import pathlib
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence

from tests import runs, servers
from tests.campaign import sets

EVERY = 7  # steps between checkpoints
STEPS = 24
LOGGED = 3  # steps between records
TRIED = 2000  # draws, until one is as wanted
BASE = (
    "--config=configs/quickstart.py",
    "--config.run.tensorboard=False",
    f"--config.run.steps={STEPS}",
    f"--config.run.log_every_steps={LOGGED}",
    "--config.run.eval_every_epochs=0.5",
    f"--config.checkpoint.every_steps={EVERY}",
    f"--config.checkpoint.keep_every_steps={EVERY}",
)
SMALL_BATCHES = ("--config.global_batch_size=8", "--config.run.eval_batch_size=8", "--config.data.val_examples=8",
                 "--config.augment.crop=none", "--config.run.eval_every_epochs=4")  # fmt: skip
SOURCES = {
    "digits": (),
    "synthetic": ("--config.data.source=synthetic:8x8x3:5:1400",),
    "a folder of images": (f"--config.data.source=folder:{sets.HERE}/photos", "--config.data.image_size=8"),
    "an npz set": (f"--config.data.source=npz:{sets.HERE}/digits.npz",),
    "a list of images": (f"--config.data.source=csv:{sets.HERE}/photos.csv", "--config.data.image_size=8"),
}
NETWORKS = {
    "cnn": ("--config.model.name=cnn", "--config.model.width=0.25"),
    "own code": ("--config.model.name=tests.own_parts:Ours", "--config.model.width=1.0"),
}
WITH_SOURCE = {
    "airbench": ("--config.model.name=airbench", "--config.model.width=0.0625", "--config.global_batch_size=16",
                 "--config.data.val_examples=32", "--config.data.source=synthetic:32x32x3:4:300"),
    "several labels": ("--config.task.name=multilabel", *NETWORKS["cnn"], "--config.optim.label_smoothing=0.0",
                       f"--config.data.source=npz:{sets.HERE}/labels.npz"),
    "regression": ("--config.task.name=regression", *NETWORKS["cnn"], "--config.optim.label_smoothing=0.0",
                   "--config.optim.learning_rate=0.01", f"--config.data.source=npz:{sets.HERE}/numbers.npz"),
    "segmentation": ("--config.model.name=unet_small", "--config.model.width=0.0625",
                     "--config.task.name=segmentation", "--config.data.source=shapes:16:24", *SMALL_BATCHES),
    "detection": ("--config.model.name=yolo_cnn", "--config.model.width=0.03125", "--config.task.name=detection",
                  "--config.task.most_boxes=4", "--config.task.most_found=20", "--config.data.source=shapes:32:48",
                  "--config.optim.label_smoothing=0.0", *SMALL_BATCHES),
    "instances": ("--config.model.name=mask_rcnn_cnn", "--config.model.width=0.015625", "--config.task.name=instances",
                  "--config.task.most_boxes=4", "--config.task.most_found=8", "--config.task.mask_side=32",
                  "--config.optim.name=sgd", "--config.optim.learning_rate=0.01", "--config.data.source=shapes:32:48",
                  "--config.optim.label_smoothing=0.0", *SMALL_BATCHES),
}  # fmt: skip
MOVED = "other devices at each start"  # in the words of a run
OPTIONS = {
    "a moving average": ("--config.optim.ema_decay=0.9",),
    "mixup and erasing": ("--config.augment.mixup=0.2", "--config.augment.erasing=0.5"),
    "cut optimiser state": ("--config.parallel.shard_optimizer=True",),
    "steps in calls": ("--config.run.steps_per_call=5",),
    "curves": (),
}
OF_CLASSES = ("mixup and erasing",)  # options that other tasks do not have


@dataclasses.dataclass(frozen=True)
class Draw:
    """One run.

    Attributes:
      words: what it is.
      flags: flags of the command.
      devices, processes: devices in each process.
      fine_tuned: whether it starts from the weights of another run.
      optimised: whether XLA optimises its programs, as for a user; compiling takes half the time without.
      fresh: whether each start is a new Python; else it is forked from one that has imported jax.
      validations: the steps after which it is validated, known from its undisturbed run.
      phases: the only ones in which it is struck, where a fault can strike in them; empty: all.
    """

    words: str
    flags: tuple[str, ...]
    devices: int = 1
    processes: int = 1
    fine_tuned: bool = False
    optimised: bool = True
    fresh: bool = dataclasses.field(default=False, compare=False)
    validations: tuple[int, ...] = dataclasses.field(default=(), compare=False)
    phases: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    def phase(self, generator: random.Random, among: Sequence[str]) -> str:
        """A random phase for a fault that can strike in these."""
        return generator.choice([phase for phase in among if phase in self.phases] or among)

    @property
    def key(self) -> str:
        """A name for the folder of its reference."""
        told = dataclasses.astuple(dataclasses.replace(self, fresh=False, validations=(), phases=()))
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


def draw(generator: random.Random) -> Draw:
    """A run; the same one for the same state of the generator."""
    whole = generator.random() < 0.3
    network = generator.choice(list(WITH_SOURCE if whole else NETWORKS))
    source = "" if whole else generator.choice(list(SOURCES))
    loader, devices = generator.choice(("resident", "stream")), generator.choice((1, 1, 2, 4, 8))
    processes = generator.choice((1, 1, 1, 1, 2))
    options = sorted(generator.sample(list(OPTIONS), generator.randint(0, 2)))
    fine_tuned, optimised = generator.random() < 0.2, generator.random() < 0.25
    if devices * processes == 1:
        options = [name for name in options if name != "cut optimiser state"]
    if devices * processes > 1 or loader == "stream":
        options = [name for name in options if name != "steps in calls"]
    if whole and network != "airbench":
        options = [name for name in options if name not in OF_CLASSES]
    if processes == 2:
        devices, loader = min(devices, 2), "stream"
    flags = [*BASE, *SOURCES.get(source, ()), *(WITH_SOURCE | NETWORKS)[network], f"--config.data.loader={loader}"]
    flags += [flag for name in options for flag in OPTIONS[name]]
    flags += [f"--config.run.curves={'curves' in options}", f"--config.seed={generator.randint(0, 3)}"]
    where = f"{devices} device{'s' * (devices > 1)}" + (" in each of 2 processes" if processes == 2 else "")
    words = [network, *([source] if source else []), loader, where, *options, *(["fine-tuned"] if fine_tuned else [])]
    return Draw(", ".join(words), tuple(flags), devices, processes, fine_tuned, optimised)


def wanted(seed: int, first: int, words: Sequence[str]) -> Draw:
    """The run of a number of a seed, or the next one after it that is described by all these words.

    Raises:
      ValueError: no run is.
    """
    for number in range(first, first + TRIED):
        found = draw(random.Random(f"{seed}-run-{number}"))
        if all(word in found.words for word in words):
            return found
    raise ValueError(f"no run is {' and '.join(words)}")


@dataclasses.dataclass(frozen=True)
class Reference:
    """The undisturbed run: its draw with all flags, its folder, and how many seconds it took."""

    draw: Draw
    folder: pathlib.Path
    seconds: float


def start(draw: Draw, workdir: pathlib.Path, devices: int = 0, **environment: str) -> list[subprocess.Popen]:
    """The processes of a run, started; `devices` in place of those of the draw."""
    each = flags_of_each(draw, workdir, "localhost")
    environment = variables(draw) | environment
    return [runs.start(*own, devices=devices or draw.devices, fresh=draw.fresh, **environment) for own in each]


def variables(draw: Draw) -> dict[str, str]:
    """Environment variables of the processes of a run."""
    return {} if draw.optimised else runs.UNOPTIMISED


def flags_of_each(draw: Draw, workdir: pathlib.Path, first: str) -> list[tuple[str, ...]]:
    """The flags of each process of a run; `first`: the address of the first of two."""
    flags = (*draw.flags, f"--workdir={workdir}")
    if draw.processes == 1:
        return [flags]
    hosts = {
        "join": "address",
        "coordinator": f"{first}:{servers.free_port()}",
        "processes": 2,
        "join_seconds": 60,
        "heartbeat_seconds": 8,
    }
    flags += tuple(f"--config.hosts.{name}={value}" for name, value in hosts.items())
    return [(*flags, f"--config.hosts.process={number}") for number in range(2)]


_making: dict[str, threading.Lock] = collections.defaultdict(threading.Lock)


def reference(draw: Draw, folder: pathlib.Path) -> Reference:
    """The undisturbed run of a draw, made unless it is there.

    Raises:
      RuntimeError: it failed, which is a mistake of the campaign.
    """
    draw = dataclasses.replace(draw, flags=sets.placed(draw.flags, folder / "sets"))
    if draw.fine_tuned:
        before = dataclasses.replace(draw, fine_tuned=False, devices=1, processes=1)
        source = reference(before, folder).folder
        draw = dataclasses.replace(
            draw, flags=(*draw.flags, f"--config.init.source=workdir:{source}"), fine_tuned=False
        )
    place = folder / draw.key
    told = place / "told.json"
    with _making[draw.key]:
        if not told.exists():
            shutil.rmtree(place, ignore_errors=True)
            began = time.monotonic()
            processes = start(dataclasses.replace(draw, fresh=False), place / "run")
            ends = [(process.communicate(timeout=900)[0], process.returncode) for process in processes]
            if any(code for _, code in ends):
                raise RuntimeError(f"the undisturbed run of {draw} failed: {ends}")
            told.write_text(json.dumps({"words": draw.words, "seconds": time.monotonic() - began}))
    validations = tuple(each["step"] for each in runs.records(place / "run") if each["kind"] == "val")
    draw = dataclasses.replace(draw, validations=validations)
    return Reference(draw, place / "run", json.loads(told.read_text())["seconds"])
