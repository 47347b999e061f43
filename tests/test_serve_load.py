"""`benchmarks.serve_load`: requests of every kind over sockets get what they should, and its page tells of them."""

import asyncio
import dataclasses
import json
import os

import numpy as np
import pytest

from benchmarks import serve_load_client, serve_load_report, serve_load_watch
from jaxcnn.serve import connections
from jaxcnn.serve.app import Limits
from jaxcnn.train import predict
from tests import small
from tests.test_serve import run, served, service  # noqa: F401 (fixtures)
from tests.test_serve_many import listening

LIMITS = Limits(body=20_000, seconds=2.0, requests=8, wait=0.001, images=4, whole=40_000)


@pytest.fixture(scope="module")
def asked(run):  # noqa: F811
    """Images as PNG and as pixels, and the answers of the run."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 8, 1), np.uint8)
    with small.programs_kept():
        return [serve_load_client.png(each) for each in pixels], pixels, predict.answers(run[1], pixels)


def over_sockets(service, limits, work):  # noqa: F811
    """`await work(port, interface)` while the application listens on a port."""

    async def listened(interface):
        async with listening(interface.app_made, connections.protocol(limits.seconds, most=99)) as (port, _):
            return await work(port, interface)

    return served(service, limits, listened)


def test_requests_of_every_kind_get_their_code_and_right_answers_and_hold_nothing(service, asked):  # noqa: F811
    images, pixels, wanted = asked

    async def work(port, interface):
        mixture = serve_load_client.Mixture(port, images, pixels, wanted)
        await mixture.asked(4 * len(mixture.cases), connections=2)
        async with asyncio.timeout(5):
            while interface.bound.under_way:  # of clients that left
                await asyncio.sleep(0.01)
        assert interface.bound.requests == 0
        return mixture

    mixture = over_sockets(service, LIMITS, work)
    for name, (_, code) in mixture.cases.items():
        heard = mixture.heard[name]
        assert (dict(heard.codes), heard.wrong, heard.told) == ({code: 4}, 0, 0), name


def test_ten_times_the_capacity_is_answered_or_refused_and_every_answer_is_right(service, asked):  # noqa: F811
    images, _, wanted = asked
    limits = dataclasses.replace(LIMITS, requests=2)
    heard, seconds = over_sockets(
        service, limits, lambda port, _: serve_load_client.pressed(port, images, wanted, 20, 0.5)
    )
    assert set(heard.codes) == {200, 429} and heard.wrong == heard.told == 0 and seconds >= 0.5
    assert len(heard.seconds) == heard.codes[200]
    wrong = [answer | {"label": "none of them"} for answer in wanted]
    heard, _ = over_sockets(service, limits, lambda port, _: serve_load_client.pressed(port, images, wrong, 1, 0.05))
    assert heard.wrong == heard.codes[200] > 0  # so wrong answers are seen


def test_the_page_has_the_figures_of_its_record():
    load = {
        "seconds": 10.0,
        "answered": 5000,
        "refused": 0,
        "others": 1,
        "broken": 2,
        "p50": 0.002,
        "p95": 0.004,
        "p99": 0.008,
        "server_seconds": 20.0,
        "other_work": 0.5,
    }
    case = {"expected": 422, "codes": {"422": 7, "0": 1}, "wrong": 0, "told": 0}
    run = {  # noqa: F811
        "name": "small", "model": "cnn", "image_shape": [8, 8, 1], "tracebacks": 0, "exit_code": 0,
        "load": {"one by one": {1: load}, "dynamic batching": {1: load | {"answered": 20_000}}},
        "too_much": {
            "connections": 640, "places": 64, "seconds": 10.0, "codes": {"200": 1000, "429": 4000, "503": 3},
            "wrong": 0, "told": 0, "largest": 64,
            "memory": [2e8, 3e8, 2.5e8], "p99": 0.1,
        },
        "mixture": {"seconds": 20.0, "requests": 8, "memory": [2e8, 2e8], "cases": {"random bytes": case}},
    }  # fmt: skip
    record = {
        "command": "…",
        "date": "2026-01-01",
        "peers": {"jaxcnn": {}},
        "client": "wrk",
        "seconds": 10.0,
        "runs": [run],
    }
    page = serve_load_report.markdown(json.loads(json.dumps(record)))
    assert "| 1 | 500 | 2.00 | 4.00 | 8.00 | 4.00 | 2,000 | 2.00 | 4.00 | 8.00 | 1.00 |" in page
    assert "Other work took 50% to 50%" in page
    assert "6 requests had neither an answer nor a refusal" in page  # two measurements of three
    assert "1,000 answers (100 per second, p99 100 ms), 4,000 refusals by 429" in page and "503: 3" in page
    assert "200 MB before, at most 300, 250 after" in page and "| random bytes | 8 | none: 1, 422: 7 | 0 |" in page


def test_memory_and_times_are_those_of_a_process():
    assert 10**7 < serve_load_watch.resident(os.getpid()) < 10**11 and serve_load_watch.resident(2**22 + 1) == 0
    with serve_load_watch.Processors(os.getpid()) as processors:
        sum(range(3_000_000))
    assert 0.01 < processors.used["server_seconds"] < 60 and 0 <= processors.used["other_work"] <= 1
