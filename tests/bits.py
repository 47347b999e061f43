"""Check that this checkout trains to the same bits as the commit of the goldens.

    python -m tests.bits                    all cases; about five minutes the first time, two after that
    python -m tests.bits resnet50 muon      cases whose names contain one of these words

Each case is a whole run of 20 steps through `python -m jaxcnn.main`, so the goldens outlive any change of the code
inside. Compared with `==`: the loss and accuracy of every step, the CRC-32 of every array of the last checkpoint, and
the loss and accuracy in `test.json`.

Goldens depend on the kind of CPU and the version of jax, so they are not in the repository: they are made once on this
machine, from `COMMIT` (one from a later commit), and kept in `$JAXCNN_BITS` (default `~/.cache/jaxcnn-bits`).
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

import jax
import jaxlib

ROOT = pathlib.Path(__file__).parent.parent
COMMIT = "ce5b5c4"
THIN = 0.0625  # width
NETWORKS = {
    "cnn": 0.25,
    "alexnet": 0.0625,
    "vgg16": 0.0625,
    "resnet50": 0.0625,
    "airbench": 0.125,
    "airbench_residual": THIN,
}
VARIANTS = {
    "plain": ["--config.optim.name=sgd"],
    "accumulate": ["--config.optim.accumulate_steps=2", "--config.norm.group_size=8"],
    "mixing": ["--config.augment.mixup=0.2", "--config.augment.cutmix=1.0"],
    "ema": ["--config.optim.ema_decay=0.99", "--config.augment.policy=trivialaugment"],
    "muon": ["--config.optim.name=muon", "--config.optim.learning_rate=0.02"],
    "adam": ["--config.optim.name=adam", "--config.optim.learning_rate=0.001"],
    "lars": ["--config.optim.name=lars", "--config.optim.clip_norm=1.0"],
    "bfloat16": ["--config.model.dtype=bfloat16", "--config.schedule.name=cosine"],
}
# Frozen parameters no longer have momentum: it had no effect.
DROPPED = re.compile(r"opt_state/.*/whitening/kernel")
# Devices and flags by loader: one device that holds the images, or eight devices to which batches are sent.
PLACES = {"resident": (1, []), "stream": (8, ["--config.parallel.shard_optimizer=True"])}
# Further places of one network: each loader on as many devices as the other has above.
OTHER_PLACES = {"resident-8": (8, PLACES["stream"][1]), "stream-1": (1, [])}
# Muon with a kernel of `muon.LARGE` entries or more: the third, at this width. The commit is the one that changed the
# order of such products.
LARGE_MUON, LARGE_WIDTH, LARGE_COMMIT = "cnn-muon_large-resident", 1.5, "b83fd12"
BASE = [
    "--config=configs/quickstart.py",
    "--config.data.source=synthetic:32x32x3:10:320",
    "--config.data.val_examples=64",
    "--config.augment.crop=zero",
    "--config.augment.flip=random",
    "--config.global_batch_size=16",
    "--config.run.steps=20",
    "--config.run.log_every_steps=1",
    "--config.run.eval_every_epochs=0.5",
    "--config.run.eval_batch_size=24",
    "--config.run.tensorboard=False",
    "--config.checkpoint.every_epochs=0",
]


def cases() -> dict[str, tuple[int, list[str]]]:
    """Name -> number of devices and flags."""
    found = {}
    for place, (devices, flags) in PLACES.items():
        flags = [*BASE, *flags, f"--config.data.loader={place}"]
        for network, width in NETWORKS.items():
            of_network = [*flags, f"--config.model.name={network}", f"--config.model.width={width}"]
            for variant in VARIANTS if network == "cnn" else ["plain"]:
                found[f"{network}-{variant}-{place}"] = devices, [*of_network, *VARIANTS[variant]]
    cnn = [*BASE, "--config.model.name=cnn"]
    for place, (devices, flags) in OTHER_PLACES.items():
        flags = [*cnn, *flags, f"--config.data.loader={place.partition('-')[0]}"]
        width = f"--config.model.width={NETWORKS['cnn']}"
        found[f"cnn-ema-{place}"] = devices, [*flags, width, *VARIANTS["ema"]]
    flags = [*cnn, "--config.data.loader=resident", f"--config.model.width={LARGE_WIDTH}", *VARIANTS["muon"]]
    found[LARGE_MUON] = 1, flags
    return found


def commit_of(name: str) -> str:
    """The commit that makes the goldens of a case."""
    return LARGE_COMMIT if name == LARGE_MUON else COMMIT


def bits(code: pathlib.Path, devices: int, flags: list[str]) -> dict:
    """The results of a run of a checkout, without times."""
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        command = [sys.executable, "-m", "jaxcnn.main", *flags, f"--workdir={workdir}"]
        variables = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAXCNN_CACHE": str(home() / "programs")}
        # The checkout comes first on the path, so an installed jaxcnn is not used.
        made = subprocess.run(command, cwd=code, env=variables, capture_output=True, text=True)
        if made.returncode:
            sys.exit(f"{' '.join(command)}\n{made.stdout}{made.stderr}")
        record = json.loads((workdir / "checkpoints" / "20" / "record" / "metadata").read_text())
        log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        names = ("kind", "step", "loss", "top1_accuracy", "top5_accuracy", "ema_loss", "ema_top1_accuracy")
        return {
            "records": [{name: line[name] for name in names if name in line} for line in log],
            "arrays": {name: seal for name, seal in record["arrays"].items() if not DROPPED.fullmatch(name)},
            "test": {name: json.loads((workdir / "test.json").read_text())[name] for name in ("loss", "top1_accuracy")},
        }


def home() -> pathlib.Path:
    """The folder of the goldens."""
    return pathlib.Path(os.environ.get("JAXCNN_BITS", "~/.cache/jaxcnn-bits")).expanduser()


def goldens_file() -> pathlib.Path:
    """The file of the goldens for this kind of CPU and these versions."""
    cpu = pathlib.Path("/proc/cpuinfo")
    flags = [line for line in cpu.read_text().splitlines() if line.startswith("flags")][:1] if cpu.exists() else []
    kind = hashlib.sha256(repr((flags, platform.machine(), BASE, VARIANTS, NETWORKS)).encode()).hexdigest()[:12]
    return home() / f"{COMMIT}-{jax.__version__}-{jaxlib.__version__}-{kind}.json"


def all_bits(code: pathlib.Path, names: list[str]) -> dict[str, dict]:
    """The bits of these cases, several at a time."""
    known = cases()
    with concurrent.futures.ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2 * 2)) as pool:
        made = {}
        for name, found in zip(names, pool.map(lambda name: bits(code, *known[name]), names), strict=True):
            print(f"  {name}: loss {found['records'][0]['loss']:.4f} ... {found['test']['loss']:.4f}", flush=True)
            made[name] = found
        return made


def goldens(names: list[str]) -> dict[str, dict]:
    """The goldens of these cases; those missing on this machine are made."""
    path = goldens_file()
    kept = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in names if name not in kept]
    for commit in sorted({commit_of(name) for name in missing}):
        print(f"goldens of {commit}, kept in {path}:")
        with tempfile.TemporaryDirectory() as folder:
            archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
            subprocess.run(["tar", "--extract", f"--directory={folder}"], input=archive, check=True)
            kept |= all_bits(pathlib.Path(folder), [name for name in missing if commit_of(name) == commit])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept))
    return {name: kept[name] for name in names}


def main() -> None:
    """Compare; exit with code 1 if a bit differs."""
    names = [name for name in cases() if not sys.argv[1:] or any(word in name for word in sys.argv[1:])]
    wanted = goldens(names)
    print("this checkout:")
    found = all_bits(ROOT, names)
    different = [
        f"{name}: {part}" for name in names for part in wanted[name] if wanted[name][part] != found[name][part]
    ]
    sys.exit("different: " + ", ".join(different) if different else print(f"{len(names)} cases, every bit the same"))


if __name__ == "__main__":
    main()
