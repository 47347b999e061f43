"""Workdirs as runs and sweeps leave them, written in a moment, for tests of reports."""

import json
import pathlib
from typing import Any

from jaxcnn import config as configs
from jaxcnn.config import Config

ENVIRONMENT = {
    "command": ["main.py", "--config=configs/vgg16_cifar10.py"],
    "python": "3.12.1",
    "packages": {"jax": "0.10.2"},
    "platform": "Linux",
    "processor": "a processor",
    "cores": 2,
    "device": "cpu",
    "devices": 1,
    "backend": "cpu",
    "commit": "0123456789ab",
}


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a JSON file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def config(**flat: Any) -> dict[str, Any]:
    """A whole config with some keys changed, `model__width=0.5` for `model.width`."""
    tree = json.loads(json.dumps(configs.to_dict(Config())))
    for name, value in flat.items():
        *groups, last = name.split("__")
        group = tree
        for each in groups:
            group = group[each]
        group[last] = value
    return tree


def write_run(
    folder: pathlib.Path,
    *,
    val: float | None = 0.94,
    test: float | None = 0.93,
    seconds: float = 100.0,
    finished: bool = True,
    device: str = "1 x cpu",
    environment: dict[str, Any] | None = None,
    confusion: list[list[int]] | None = None,
    **changes: Any,
) -> pathlib.Path:
    """A workdir with three evaluations; `changes` are of the config, as in `config`."""
    tree = config(**changes)
    if val is None:
        tree["data"]["protocol"] = "full"
    write_json(folder / "config.json", tree)
    write_json(folder / "environment.json", ENVIRONMENT | (environment or {}))
    records: list[dict[str, Any]] = []
    for n in (1, 2, 3):
        at = {"step": 10 * n, "epoch": float(n), "train_seconds": seconds * n / 3}
        records.append({"kind": "train", **at, "loss": 2.0 / n, "top1_accuracy": 0.3 * n, "learning_rate": 0.1})
        if val is not None:
            records.append({"kind": "val", **at, "loss": 2.0 / n, "top1_accuracy": val * (0.7 + 0.1 * n)})
    if not finished:
        records = records[:-2]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    if finished:
        tested = None if test is None else {"of_step": 30, "loss": 0.3, "top1_accuracy": test, "examples": 10000}
        summary = {
            "model": tree["model"]["name"],
            "data": "tfds:cifar10:3.0.2 train",
            "protocol": tree["data"]["protocol"],
            "seed": tree["seed"],
            "steps": 30,
            "epochs": 3.0,
            "global_batch_size": tree["global_batch_size"],
            "device": device,
            "headline": "top1_accuracy",
            "tta": "none",
            "test": tested,
            "val_best": None if val is None else {"accuracy": val + 0.01, "step": 20},
            "val_last": val,
            "images_per_second": 1000.0,
            "train_seconds": seconds,
            "wall_seconds": seconds + 20,
            "starts": 1,
        }
        write_json(folder / "summary.json", summary)
        if tested and confusion:
            names = [f"class {k}" for k in range(len(confusion))]
            shares = {name: row[k] / sum(row) for k, (name, row) in enumerate(zip(names, confusion, strict=True))}
            write_json(folder / "test.json", tested | {"per_class_accuracy": shares, "confusion_matrix": confusion})
    return folder


def write_sweep(folder: pathlib.Path) -> pathlib.Path:
    """Eleven of 14 planned trials: batch sizes x learning rates, some with seeds; one of each kind of ending."""
    planned = [
        {"overrides": {"global_batch_size": batch, "optim.learning_rate": rate}, "seed": seed}
        for batch in (64, 128)
        for rate in (0.1, 0.01)
        for seed in (0, 1, 2)
    ]
    planned += [{"overrides": {"global_batch_size": 64, "optim.learning_rate": 9.0}, "seed": seed} for seed in (0, 1)]
    ends = {8: "running", 10: "pruned", 12: "diverged", 13: "failed"}
    for number, trial in enumerate(planned):
        if number in (4, 5, 11):
            continue  # planned, and not run
        state = ends.get(number, "complete")
        batch, rate = trial["overrides"].values()
        mine = folder / "trials" / f"{number:04}"
        accuracy = 0.9 + 0.02 * (rate == 0.1) + 0.01 * (batch == 64) + 0.001 * trial["seed"]
        if state != "failed":
            write_run(
                mine, val=accuracy, test=accuracy - 0.01 - 0.03 * (batch == 64), seconds=6400 / batch + trial["seed"],
                finished=state == "complete", seed=trial["seed"], global_batch_size=batch, optim__learning_rate=rate,
                confusion=[[8, 2, 0], [1, 9, 0], [0, 3, 7]],
            )  # fmt: skip
        reason = {"pruned": "below the median", "diverged": "step 3 is not finite", "failed": "no such data"}.get(state)
        times = {"began": f"2026-01-01T00:{number:02}:00+00:00", "ended": f"2026-01-01T00:{number:02}:50+00:00"}
        write_json(
            mine / "trial.json",
            {"number": number, **trial, "state": state, "reason": reason, "starts": 1, "worker": "a", "values": {}}
            | times,
        )
    sweep = {
        "name": "batch_and_rate",
        "command": ["sweep.py", "--config=configs/sweeps/batch_and_rate.py"],
        "config_file": "configs/sweeps/batch_and_rate.py",
        "varied": ["global_batch_size", "optim.learning_rate", "seed"],
        "planned": planned,
        "sampler": "grid",
        "created": "2026-01-01T00:00:00+00:00",
    }
    write_json(folder / "sweep.json", sweep)
    return folder
