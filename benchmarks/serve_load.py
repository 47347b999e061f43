"""Measures how many images a server answers, how quickly, and under overload: `python -m benchmarks.serve_load`.

    python -m benchmarks.serve_load --workdirs=runs/alexnet_cifar10,runs/vgg16_cifar10 --out=results/serving

For each finished run, `jaxcnn.serve` is started with and without dynamic batching (--batch=1), and asked by `wrk` at
several numbers of connections; without wrk, by a client of our own, in Python, which takes more of the processor. Then
it is asked on ten times as many connections as it admits images, and by requests of every kind, broken ones too; each
answer is held against that of the run, and the resident memory of the server is read before and after. The images are
the first of the validation split, as PNG. Client and server share this machine. Writes <out>.json and <out>.md.
"""

import asyncio
import contextlib
import json
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks import child, report, serve_load_report
from benchmarks.serve_load_client import Heard, Mixture, png, pressed
from benchmarks.serve_load_watch import Processors, Watcher, resident
from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.machine import extras
from jaxcnn.train import summary
from jaxcnn.train.interrupts import Interrupted

OUT = command.define_path("out", "results/serving", "The files to write, without .json and .md.")
WORKDIRS = flags.DEFINE_list("workdirs", [], "Finished runs of classification.")
DATA = command.define_path("data", "", "Where the data of the runs is now, if it is not where they found it.")
CONNECTIONS = flags.DEFINE_list("connections", ["1", "4", "16", "64"], "Clients at once.")
SECONDS = flags.DEFINE_float("seconds", 10.0, "Of each measurement.", lower_bound=0.1)
BATCH = flags.DEFINE_integer("batch", 32, "Most images in a batch, where there is dynamic batching.", lower_bound=2)
PLACES = flags.DEFINE_integer("places", 64, "Images that the server admits while it is asked for too much.")
REQUESTS = flags.DEFINE_integer("requests", 10_000, "Requests of every kind.", lower_bound=1)
CLIENT = flags.DEFINE_enum("client", "", ["", "wrk", "own"], "Who asks; by default wrk, if it is there.")
IMAGES = 64
SCRIPT = pathlib.Path(__file__).with_name("serve_load.lua")
TIMES = 10  # factor of the capacity
PARTS = 5  # parts of the requests of every kind; memory is read between them


def main() -> int:
    """Measure, and write the files; return the exit code."""
    folders = [pathlib.Path(each).absolute() for each in WORKDIRS.value]
    if not folders:
        raise UserError("there is no run: give --workdirs=<folder>,<folder>")
    if not all(each.isdecimal() and int(each) for each in CONNECTIONS.value):
        raise UserError(f"--connections={','.join(CONNECTIONS.value)}: these are whole numbers from 1")
    for folder in folders:
        if summary.read(folder) is None:
            raise UserError(f"{folder} is no finished run; its command goes on with it")
    extras.need("serve", "benchmarks.serve_load")
    from jaxcnn.train import environment

    client = CLIENT.value or ("wrk" if shutil.which("wrk") else "own")
    out = report.check_out(OUT.value)
    child.ready(command.interrupts())
    records: list[dict[str, Any]] = []
    for folder in folders:
        try:
            records.append(_measured(folder, client))
        except Interrupted as error:
            return child.say_stopped(error)
        record = report.provenance("benchmarks.serve_load", {"jaxcnn": environment.facts([])})
        record |= {"client": client, "seconds": SECONDS.value, "runs": records}
        report.write(out, serve_load_report.SECTION, record, serve_load_report.markdown(record))
    print(serve_load_report.markdown(record))
    return 0


def _measured(folder: pathlib.Path, client: str) -> dict[str, Any]:
    pixels, wanted, facts = expected(folder, DATA.value or "")
    images = [png(each) for each in pixels]
    most = {"one by one": 1, "dynamic batching": BATCH.value or 2}
    record: dict[str, Any] = {"name": folder.name, "load": {name: {} for name in most}} | facts
    with tempfile.TemporaryDirectory() as place:
        for number, image in enumerate(images):
            (pathlib.Path(place) / f"{number}.png").write_bytes(image)
        for name, batch in most.items():
            with server(folder, batch) as (port, process, _):
                _load(port, place, client, images, wanted, int(CONNECTIONS.value[0]), 1.0)  # to warm up
                for connections in map(int, CONNECTIONS.value):
                    child.check(command.interrupts())
                    with Processors(process.pid) as processors:
                        found = _load(port, place, client, images, wanted, connections, SECONDS.value or 1.0)
                    found |= processors.used
                    record["load"][name][connections] = found
                    told = f"{found['answered'] / found['seconds']:.0f} images/s, p99 {1000 * found['p99']:.1f} ms"
                    print(f"jaxcnn: {folder.name}, {name}, {connections} connections: {told}", flush=True)
    places = PLACES.value or 1
    with server(folder, BATCH.value or 2, f"--max_requests={places}") as (port, process, output):
        record["too_much"] = _too_much(port, process.pid, images, wanted, places)
        record["mixture"] = _mixture(port, process.pid, images, pixels, wanted)
        process.send_signal(signal.SIGTERM)
        record["exit_code"] = process.wait(60)
    record["tracebacks"] = "".join(output).count("Traceback")
    return record


def expected(folder: pathlib.Path, place: str = "") -> tuple[np.ndarray, list[dict[str, Any]], dict[str, Any]]:
    """Images of the validation split, which may be at another `place` now, the answers of the run, and its facts."""
    from jaxcnn.train import assess, predict, trained

    network, _ = trained.load(folder, "last", "", 1)
    if network.config.task.name != "classification" or network.spec.image_shape[-1] not in (1, 3):
        raise UserError(f"{folder} is not of classification of grey or RGB images")
    split = assess.open_split(network, folder, "val", place)[0]
    encoded = [png(each) for each in np.asarray(split.read(np.arange(min(IMAGES, len(split)))))]
    shape, data = network.spec.image_shape, network.config.data
    pixels = np.stack([predict.decoded(each, shape, data) for each in encoded])
    facts = {"model": network.config.model.name, "image_shape": list(shape), "step": network.step}
    return pixels, predict.answers(network, pixels), facts


@contextlib.contextmanager
def server(folder: pathlib.Path, batch: int, *options: str) -> Iterator[tuple[int, subprocess.Popen[str], list[str]]]:
    """A server on a free port: the port, its process and, at the end, the lines of its output."""
    line = child.python("jaxcnn.serve", f"--workdir={folder}", "--port=0", f"--batch={batch}", *options)
    process = subprocess.Popen(line, cwd=child.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    output: list[str] = []
    try:
        assert process.stdout is not None
        found = None
        while found is None and (said := process.stdout.readline()):
            output.append(said)
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
        if found is None:
            raise UserError(f"the server did not start: {''.join(output[-1:]).strip()}")
        reader = threading.Thread(target=output.extend, args=(process.stdout,))
        reader.start()
        yield int(found[1]), process, output
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
    reader.join()


def _load(
    port: int,
    place: str,
    client: str,
    images: Sequence[bytes],
    wanted: Sequence[dict[str, Any]],
    connections: int,
    seconds: float,
) -> dict[str, Any]:
    """The counts of replies by kind, the seconds, and the percentiles of the latency."""
    if client == "wrk":
        line = [
            "wrk", "--threads=1", f"--connections={connections}", f"--duration={max(1, round(seconds))}s",
            "--timeout=60s", f"--script={SCRIPT}", f"http://127.0.0.1:{port}", "--", place, str(len(images)),
        ]  # fmt: skip
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"wrk failed: {(done.stderr or done.stdout).strip()[-200:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])
    heard, took = asyncio.run(pressed(port, images, wanted, connections, seconds))
    return {
        "seconds": took, "answered": heard.codes[200], "refused": heard.codes[429], "wrong": heard.wrong,
        "others": sum(heard.codes.values()) - heard.codes[200] - heard.codes[429], "broken": heard.codes[0],
    } | _percentiles(heard.seconds)  # fmt: skip


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{share}": float(np.percentile(seconds or [0.0], share)) for share in (50, 95, 99)}


def _too_much(
    port: int, process: int, images: Sequence[bytes], wanted: Sequence[dict[str, Any]], places: int
) -> dict[str, Any]:
    asyncio.run(pressed(port, images, wanted, places // 2, 2.0))  # what it answers when it is not asked for too much
    before = resident(process)
    with Watcher(process) as watcher:
        heard, took = asyncio.run(pressed(port, images, wanted, TIMES * places, SECONDS.value or 1.0))
    time.sleep(1.0)
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    largest = re.search(r"^jaxcnn_images_under_way_largest (\d+)$", text, re.MULTILINE)
    return {
        "connections": TIMES * places, "places": places, "seconds": took, "codes": dict(sorted(heard.codes.items())),
        "wrong": heard.wrong, "told": heard.told, "largest": int(largest[1]) if largest else None,
        "memory": [before, watcher.most, resident(process)],
    } | _percentiles(heard.seconds)  # fmt: skip


def _mixture(
    port: int, process: int, images: Sequence[bytes], pixels: np.ndarray, wanted: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    mixture = Mixture(port, images, pixels, wanted)
    asyncio.run(mixture.asked(len(mixture.cases) * 20, seed=-1))  # until memory that is needed anyway is there
    mixture.heard.clear()
    memory, began = [resident(process)], time.perf_counter()
    for part in range(PARTS):
        child.check(command.interrupts())
        asyncio.run(mixture.asked((REQUESTS.value or PARTS) // PARTS, seed=part))
        memory.append(resident(process))
    heard: dict[str, Heard] = mixture.heard
    return {
        "seconds": time.perf_counter() - began, "memory": memory,
        "requests": sum(sum(each.codes.values()) for each in heard.values()),
        "cases": {
            name: {"expected": code, "codes": dict(one.codes), "wrong": one.wrong, "told": one.told,
                "unexpected": one.unexpected}
            for name, (_, code) in mixture.cases.items()
            for one in (heard[name],)
        },
    }  # fmt: skip


if __name__ == "__main__":
    command.run(main)
