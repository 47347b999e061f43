"""Make many steps, then ask a server many times; memory, open files, threads and speed must stay as they are.

    python -m tests.endurance --steps=50000 --requests=100000 [--page=results/endurance.md]

A tiny network trains from Python on the digits, with 200 checkpoints, 100 evaluations and two callbacks; its process
is sampled 400 times. Then `jaxcnn.serve` serves the run, and gets requests of every kind (also broken ones, and of
clients that leave) on eight connections; it is sampled 100 times, and every answer is compared with that of the run.
Exit code 1: something grew, became slower or was wrong (`tests.endurance.samples`).
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from tests import conftest, runs
from tests.endurance import requests, steps
from tests.endurance.page import page
from tests.endurance.samples import Sample, complaints, figures

LEAST = 300  # steps, or requests, of which a tenth has enough samples


def trained(workdir: pathlib.Path, count: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Samples of a process that trains, and what was wrong, each in a few words."""
    out = workdir.with_name("samples.jsonl")
    line = [sys.executable, "-m", "tests.endurance.steps", str(workdir), str(count), str(out)]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}  # eight, as in tests, make a step four times as dear
    done = subprocess.run(line, cwd=runs.ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return [], [f"training ended with exit code {done.returncode}"]
    seen = json.loads(done.stdout.splitlines()[-1])
    wrong = [f"{seen['steps']} of {count} steps called back"] if seen["steps"] != count else []
    wrong += [f"{seen['evaluations']} evaluations called back"] if seen["evaluations"] < steps.VALIDATIONS // 2 else []
    return [json.loads(each) for each in out.read_text().splitlines()], wrong


def main() -> int:
    """Make both parts, write the page, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument(
        "--page", type=pathlib.Path, help="write the page to this file, and its record beside it, .json"
    )
    given = parser.parse_args()
    if min(given.steps, given.requests) < LEAST:
        parser.error(f"--steps and --requests are at least {LEAST}")
    assert conftest.compile_cache()  # which has set the environment
    record: dict[str, Any] = {"command": f"python -m tests.endurance --steps={given.steps} --requests={given.requests}"}
    with tempfile.TemporaryDirectory() as folder:
        workdir = pathlib.Path(folder) / "run"
        for name, make in (("steps", trained), ("requests", requests.asked)):
            samples, wrong = make(workdir, getattr(given, name))
            told = figures([Sample(**each) for each in samples]) if samples else {}
            record[name] = {"figures": told, "wrong": wrong + (complaints(told) if told else []), "samples": samples}
            print(f"{name}: {told}; {'; '.join(record[name]['wrong']) or 'nothing wrong'}", flush=True)
            if not samples:
                break
    if given.page:
        given.page.write_text(page(record))
        given.page.with_suffix(".json").write_text(json.dumps(record, separators=(",", ":")) + "\n")
    return int(any(record[name]["wrong"] for name in ("steps", "requests") if name in record))


if __name__ == "__main__":
    raise SystemExit(main())
