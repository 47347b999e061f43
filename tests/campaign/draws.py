"""Small runs drawn at random, and their undisturbed references, which many faults share."""

import dataclasses
import hashlib
import json
import pathlib
import random
import shutil
import subprocess
import time

from tests import runs, servers

EVERY = 7  # steps between checkpoints
STEPS = 24
BASE = (
    "--config=configs/quickstart.py",
    "--config.run.tensorboard=False",
    f"--config.run.steps={STEPS}",
    "--config.run.log_every_steps=3",
    "--config.run.eval_every_epochs=0.5",
    f"--config.checkpoint.every_steps={EVERY}",
    f"--config.checkpoint.keep_every_steps={EVERY}",
)
SOURCES = {
    "digits": (),
    "synthetic": ("--config.data.source=synthetic:8x8x3:5:1400",),
}
NETWORKS = {
    "cnn": ("--config.model.name=cnn", "--config.model.width=0.25"),
    "airbench": ("--config.model.name=airbench", "--config.model.width=0.0625", "--config.data.val_examples=100",
                 "--config.data.source=synthetic:32x32x3:4:900"),
    "own code": ("--config.model.name=tests.own_parts:Ours", "--config.model.width=1.0"),
}  # fmt: skip
OPTIONS = {
    "a moving average": ("--config.optim.ema_decay=0.9",),
    "mixup and erasing": ("--config.augment.mixup=0.2", "--config.augment.erasing=0.5"),
    "cut optimiser state": ("--config.parallel.shard_optimizer=True",),
    "steps in calls": ("--config.run.steps_per_call=5",),
    "curves": (),
}


@dataclasses.dataclass(frozen=True)
class Draw:
    """One run: what it is in words, its flags, devices in each process, processes, and whether it is fine-tuned."""

    words: str
    flags: tuple[str, ...]
    devices: int = 1
    processes: int = 1
    fine_tuned: bool = False

    @property
    def key(self) -> str:
        """A name for the folder of its reference."""
        return hashlib.sha256(repr(dataclasses.astuple(self)).encode()).hexdigest()[:12]


def draw(generator: random.Random) -> Draw:
    """A run; the same one for the same state of the generator."""
    source, network = generator.choice(list(SOURCES)), generator.choice(list(NETWORKS))
    loader, devices = generator.choice(("resident", "stream")), generator.choice((1, 1, 2, 4, 8))
    processes = generator.choice((1, 1, 1, 2))
    options = sorted(generator.sample(list(OPTIONS), generator.randint(0, 2)))
    fine_tuned = generator.random() < 0.2
    if devices * processes == 1:
        options = [name for name in options if name != "cut optimiser state"]
    if devices * processes > 1 or loader == "stream":
        options = [name for name in options if name != "steps in calls"]
    if processes == 2:
        devices, loader = min(devices, 2), "stream"
    flags = [*BASE, *SOURCES[source], *NETWORKS[network], f"--config.data.loader={loader}"]
    flags += [flag for name in options for flag in OPTIONS[name]]
    flags += [f"--config.run.curves={'curves' in options}", f"--config.seed={generator.randint(0, 3)}"]
    where = f"{devices} device{'s' * (devices > 1)}" + (" in each of 2 processes" if processes == 2 else "")
    source = "synthetic" if network == "airbench" else source
    words = ", ".join([network, source, loader, where, *options, *(["fine-tuned"] if fine_tuned else [])])
    return Draw(words, tuple(flags), devices, processes, fine_tuned)


@dataclasses.dataclass(frozen=True)
class Reference:
    """The undisturbed run: its draw with all flags, its folder, and how many seconds it took."""

    draw: Draw
    folder: pathlib.Path
    seconds: float


def start(draw: Draw, workdir: pathlib.Path, devices: int = 0, **environment: str) -> list[subprocess.Popen]:
    """The processes of a run, started; `devices` in place of those of the draw."""
    flags = (*draw.flags, f"--workdir={workdir}")
    if draw.processes == 1:
        return [runs.start(*flags, devices=devices or draw.devices, **environment)]
    hosts = {
        "join": "address",
        "coordinator": f"localhost:{servers.free_port()}",
        "processes": 2,
        "join_seconds": 60,
        "heartbeat_seconds": 8,
    }
    flags += tuple(f"--config.hosts.{name}={value}" for name, value in hosts.items())
    each = ((*flags, f"--config.hosts.process={number}") for number in range(2))
    return [runs.start(*own, devices=devices or draw.devices, **environment) for own in each]


def reference(draw: Draw, folder: pathlib.Path) -> Reference:
    """The undisturbed run of a draw, made unless it is there.

    Raises:
      RuntimeError: it failed, which is a mistake of the campaign.
    """
    if draw.fine_tuned:
        before = dataclasses.replace(draw, fine_tuned=False, devices=1, processes=1)
        source = reference(before, folder).folder
        draw = dataclasses.replace(
            draw, flags=(*draw.flags, f"--config.init.source=workdir:{source}"), fine_tuned=False
        )
    place = folder / draw.key
    told = place / "told.json"
    if not told.exists():
        shutil.rmtree(place, ignore_errors=True)
        began = time.monotonic()
        processes = start(draw, place / "run")
        ends = [(process.communicate(timeout=900)[0], process.returncode) for process in processes]
        if any(code for _, code in ends):
            raise RuntimeError(f"the undisturbed run of {draw} failed: {ends}")
        told.write_text(json.dumps({"words": draw.words, "seconds": time.monotonic() - began}))
    return Reference(draw, place / "run", json.loads(told.read_text())["seconds"])
