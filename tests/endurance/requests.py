"""Requests of every kind against a server in a process of its own, which is sampled between parts of them."""

import asyncio
import dataclasses
import pathlib
import signal
from typing import Any

from benchmarks import serve_load
from benchmarks.serve_load_client import Mixture, png
from tests.endurance.samples import sample

PARTS = 100  # of the requests, between which the server is sampled
BATCH = 8


def asked(workdir: pathlib.Path, requests: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Samples of a server of a finished run, and what was wrong, each in a few words; every answer is checked."""
    pixels, wanted, _ = serve_load.expected(workdir)
    wrong: list[str] = []
    with serve_load.server(workdir, BATCH) as (port, process, output):
        mixture = Mixture(port, [png(each) for each in pixels], pixels, wanted)
        samples = [sample(process.pid, 0)]
        for part in range(PARTS):
            count = requests * (part + 1) // PARTS - requests * part // PARTS
            asyncio.run(mixture.asked(count, seed=part))
            samples.append(sample(process.pid, samples[-1].done + count))
        process.send_signal(signal.SIGTERM)
        if code := process.wait(60):
            wrong.append(f"after SIGTERM the server ended with exit code {code}")
    if "Traceback" in (said := "".join(output)):
        wrong.append(f"the server wrote a traceback: {said[-300:]}")
    for name, heard in mixture.heard.items():
        if heard.wrong or heard.told or heard.unexpected:
            wrong.append(f"{name}: {heard.wrong} wrong answers, unexpected: {heard.unexpected[:1]}")
    return [dataclasses.asdict(each) for each in samples], wrong
