"""A sample of wrong flags and damaged files in real processes: each ends with exit code 2 and plain lines, or runs."""

import pathlib
import random
import subprocess
from collections.abc import Iterator

import numpy as np

from jaxcnn import config as configs
from tests import digits, runs
from tests.bad_input import mutations
from tests.bad_input.config_cases import VALUES
from tests.bad_input.outcome import ACCEPTED, DEFECT, REFUSED

SECONDS = 240  # after which a process hangs, which may have to compile its network
BASE = (*runs.DIGITS, "--config.run.steps=2", "--config.model.width=0.25", "--config.data.val_examples=200")
OTHERS = ("hosts.", "run.steps", "run.epochs", "run.loggers")  # fields that wait for others, or make a run long
DIVERGED = 3
MOST_LINE = 500  # letters


def told(code: int | None, output: str) -> tuple[str, str]:
    """What became of a process, and why, as `outcome.of`; `code` is None if it had to be ended."""
    said = output.strip().splitlines() or [""]
    if code is None:
        return DEFECT, f"longer than {SECONDS} s: {said[-1]}"
    if "Traceback (most recent call last)" in output or code not in (0, 2, DIVERGED):
        return DEFECT, f"exit code {code}: {said[-1][:300]}"
    if code == 2 and (not said[-1].strip() or len(said[-1]) > MOST_LINE):
        return DEFECT, f"no plain line: {said[-1][:300]!r}"
    return (ACCEPTED if code == 0 else REFUSED), said[-1]


def cases(number: int, seed: int, folder: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
    """The kind, the case in words, what became of it, and why, for so many processes."""
    generator = random.Random(f"{seed}-processes")
    keys = [key for key in configs.flatten(configs.to_dict(configs.Config())) if not key.startswith(OTHERS)]
    values = [text for value in VALUES if "\0" not in (text := _text(value))]
    digits.run(folder / "run", run={"steps": 4})
    pixels = np.zeros((60, 8, 8, 1), np.uint8)
    np.savez(folder / "set.npz", train_images=pixels, train_labels=np.arange(60) % 3)
    np.savez(folder / "weights.npz", **{"params/classifier/bias": np.zeros(10, np.float32)})
    (folder / "images").mkdir()
    for count in range(number):
        kind = ("flags", "flags", "a set", "weights", "a finished run")[count % 5]
        flags = list(BASE)
        if kind == "flags":
            chosen = [f"--config.{key}={generator.choice(values)}" for key in generator.sample(keys, 1 + count % 2)]
            flags, words = [*flags, *chosen], " ".join(chosen)[:200]
        else:
            whole = generator.choice(_files(folder, kind))
            content, how = whole.read_bytes(), generator.choice(mutations.HOW)
            whole.write_bytes(mutations.mutated(content, how, generator))
            words = f"{whole.name} {how}"
            flags += {"a set": [f"--config.data.source=npz:{whole}", "--config.data.val_examples=10"],
                      "weights": [f"--config.init.source=file:{whole}"], "a finished run": []}[kind]  # fmt: skip
        if kind == "a finished run":
            flags = [f"--workdir={folder}/run", "--mode=eval", "--split=val"]
        else:
            flags.append(f"--workdir={folder}/{count}")
        yield f"{kind}, in a process", words, *_run(flags)
        if kind != "flags":
            whole.write_bytes(content)


def _files(folder: pathlib.Path, kind: str) -> list[pathlib.Path]:
    if kind == "a finished run":
        return [path for path in sorted((folder / "run").rglob("*")) if path.is_file() and path.name != "metrics.jsonl"]
    return [folder / ("set.npz" if kind == "a set" else "weights.npz")]


def _run(flags: list[str]) -> tuple[str, str]:
    process = runs.start(*flags, **runs.UNOPTIMISED)
    try:
        output, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return told(None, output)
    return told(process.returncode, output)


def _text(value: object) -> str:
    try:
        return str(value)[:5000].encode("utf-8", "replace").decode()
    except ValueError:
        return "9" * 5000  # a long integer
