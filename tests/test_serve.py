"""The server: requests that come together are answered together, and what a client may cost is bounded."""

import asyncio
import http.client
import io
import json
import re
import signal
import threading

import numpy as np
import pytest
from PIL import Image

from jaxcnn.serve import metrics
from jaxcnn.serve.app import Interface, Limits
from jaxcnn.serve.batching import Batcher
from jaxcnn.serve.bound import Bound, Busy
from jaxcnn.serve.metrics import Metrics
from jaxcnn.serve.service import Service
from jaxcnn.train import predict, trained
from tests import digits, runs, small

LIMITS = Limits(body=20_000, seconds=0.2, requests=4, wait=0.0)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve") / "run"
    digits.run(folder)
    with small.programs_kept():
        return folder, trained.load(folder, "last", "", 1)[0]


@pytest.fixture(scope="module")
def service(run):
    made = Service(run[1], 4, max_megapixels=0.01)
    made.warm_up()
    return made


IMAGE = png(np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8))


async def ask(interface, body=IMAGE, path="/predict", method="POST", parts=None, leaves=False, gone=None, **headers):
    """Status, headers and body of a request to the application, without a socket.

    The client leaves before the end of its body (`leaves`), or after it (at the event `gone`).
    """
    sent, left = [], list(parts if parts is not None else [body])

    async def receive():
        if left:
            part = left.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(left) or leaves}
        if gone is not None:
            await gone.wait()
        elif not leaves:
            await asyncio.sleep(60)  # a client that sends nothing more
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    names = {"content-type": "image/png"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "scheme": "http", "http_version": "1.1", "headers": [(n.encode(), v.encode()) for n, v in names.items() if v],
        "server": ("t", 1), "client": ("t", 2),
    }  # fmt: skip
    await interface.app_made(scope, receive, send)
    begin = sent[0]
    told = {name.decode(): value.decode() for name, value in begin["headers"]}
    return begin["status"], told, b"".join(each.get("body", b"") for each in sent[1:])


def served(service, limits, work, log=None):
    """`await work(interface)` while the application of a service, or of several by name, runs."""

    async def whole():
        services = service if isinstance(service, dict) else {"digits": service}
        interface = Interface(services, limits, log)
        interface.app_made = interface.app()
        async with interface._lifespan(interface.app_made):
            return await work(interface)

    return asyncio.run(whole())


def test_an_answer_is_that_of_predict_whatever_comes_beside_it(service, run):
    images = [png(np.random.default_rng(i).integers(0, 255, (8, 8), np.uint8)) for i in range(7)]
    pixels = [predict.decoded(each, (8, 8, 1), run[1].config.data) for each in images]
    with small.programs_kept():
        expected = predict.answers(run[1], np.stack(pixels))

    async def work(interface):
        return await asyncio.gather(*(ask(interface, each) for each in images))

    limits = Limits(body=20_000, seconds=5.0, requests=99, wait=0.01)
    for (code, _, content), answer in zip(served(service, limits, work), expected, strict=True):
        found = json.loads(content)
        assert code == 200 and found["label"] == answer["label"]
        # float32 sums of another batch size round otherwise.
        assert found["probability"] == pytest.approx(answer["probability"], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"body": b""}, 422, "no image that can be read"),
        ({"body": IMAGE[:60]}, 422, "no image that can be read"),
        ({"body": b"GIF89a nothing"}, 422, "no image that can be read"),
        ({"body": png(np.zeros((200, 200), np.uint8))}, 422, "megapixel"),
        ({"content_type": "text/html"}, 415, "content type image/"),
        ({"content_length": "20001"}, 413, "at most 20,000 bytes"),
        ({"content_length": "-1"}, 413, "at most 20,000 bytes"),
        ({"parts": [b"x" * 15_000] * 2}, 413, "at most 20,000 bytes"),
        ({"parts": [IMAGE[:20]], "leaves": True}, 499, "the client left"),
        ({"method": "GET"}, 405, ""),
        ({"path": "/none", "method": "GET"}, 404, ""),
    ],
)
def test_what_cannot_be_answered_is_told_in_one_line_and_holds_nothing(service, options, code, words):
    async def work(interface):
        result = await ask(interface, **options)
        assert interface.bound.under_way == 0
        return result

    found, _, content = served(service, LIMITS, work)
    assert found == code and words in content.decode() and b"Traceback" not in content and b"\n" not in content.strip()


def test_a_slow_client_is_left_after_its_time(service):
    async def slow(interface):
        async def receive():
            await asyncio.sleep(60)

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "query_string": b""}
        sent = []

        async def send(message):
            sent.append(message)

        await interface.app_made(scope, receive, send)
        return sent[0]["status"], interface.bound.under_way

    assert served(service, LIMITS, slow) == (408, 0)


def test_a_token_is_needed_where_there_is_one(service):
    async def work(interface):
        given = ("", "Bearer wrong", "Bearer secret", "secret", "Bearer \xe9")
        return [(await ask(interface, authorization=each))[0] for each in given]

    limits = Limits(body=20_000, seconds=1.0, requests=4, wait=0.0, token="secret")
    assert served(service, limits, work) == [401, 401, 200, 401, 401]


class Slow:
    """A service whose answers wait until they may go on."""

    most = 4

    def __init__(self):
        self.go, self.began, self.sizes = threading.Event(), threading.Event(), []

    def decode(self, content):
        return np.zeros(1)

    def answers(self, images):
        self.began.set()
        self.go.wait(10)
        self.sizes.append(len(images))
        return [{"answer": 1}] * len(images)


def test_at_ten_times_the_limit_all_others_get_429_with_a_time_and_those_admitted_their_answer():
    service = Slow()

    async def work(interface):
        asked = [asyncio.create_task(ask(interface)) for _ in range(40)]
        await asyncio.sleep(0.1)
        service.go.set()
        return await asyncio.gather(*asked), (await ask(interface, path="/metrics", method="GET"))[2].decode()

    results, text = served(service, LIMITS, work)
    codes = [code for code, _, _ in results]
    assert codes.count(200) == LIMITS.requests and codes.count(429) == 40 - LIMITS.requests
    assert all(int(headers["retry-after"]) >= 1 for code, headers, _ in results if code == 429)
    assert 'jaxcnn_responses_total{model="digits",code="429"} 36' in text and "jaxcnn_requests_under_way 0" in text


def test_what_waits_while_the_network_is_busy_is_one_batch_and_a_drain_answers_all_of_it():
    service = Slow()

    async def work(interface):
        first = asyncio.create_task(ask(interface))
        await asyncio.sleep(0.05)  # the network has it
        others = [asyncio.create_task(ask(interface)) for _ in range(3)]
        await asyncio.sleep(0.05)
        drained = asyncio.create_task(interface.bound.drain())
        await asyncio.sleep(0.02)
        late, _, _ = await ask(interface)
        ready, _, _ = await ask(interface, path="/ready", method="GET")
        service.go.set()
        await drained
        return [code for code, _, _ in await asyncio.gather(first, *others)], late, ready

    assert served(service, LIMITS, work) == ([200] * 4, 429, 503)
    assert service.sizes == [1, 3]


def test_a_failing_network_is_500_without_a_traceback_and_the_next_request_is_answered(caplog):
    service = Slow()
    service.go.set()
    answers, service.answers = service.answers, lambda images: 1 / 0

    async def work(interface):
        broken = await ask(interface)
        service.answers = answers
        interface.batchers["digits"]._answer = answers
        return broken, await ask(interface)

    (code, _, content), (after, _, _) = served(service, LIMITS, work)
    assert (code, after) == (500, 200) and b"ZeroDivision" not in content and b"its log has more" in content


def test_images_of_clients_that_left_are_not_computed_and_counted_apart():
    service = Slow()

    async def work(interface):
        gone = asyncio.Event()
        first = asyncio.create_task(ask(interface, gone=gone))  # is being computed when it leaves
        await asyncio.sleep(0.05)
        leaving = [asyncio.create_task(ask(interface, gone=gone)) for _ in range(2)]
        staying = asyncio.create_task(ask(interface))
        await asyncio.sleep(0.05)
        gone.set()
        left = [(await each)[0] for each in (first, *leaving)]
        await asyncio.sleep(0.05)
        places, waiting = interface.bound.under_way, interface.batchers["digits"].waiting
        service.go.set()
        code = (await staying)[0]
        return left, places, waiting, code, interface.bound.under_way, interface.metrics["digits"]

    left, places, waiting, code, after, counted = served(service, LIMITS, work)
    assert (left, code) == ([499] * 3, 200) and counted.responses == {499: 3, 200: 1}
    assert (places, waiting, after) == (2, 1, 0)  # the image that is being computed keeps its place
    assert service.sizes == [1, 1] and counted.images == 2 and counted.dropped == 2


def test_after_its_deadline_a_request_gets_504_and_one_that_would_wait_longer_is_refused_at_once():
    service = Slow()
    limits = Limits(body=20_000, seconds=1.0, requests=9, wait=0.0, deadline=0.8)

    async def work(interface):
        late = [asyncio.create_task(ask(interface))]
        while not service.began.is_set() and not late[0].done():
            await asyncio.sleep(0.01)
        late.append(asyncio.create_task(ask(interface)))  # waits for the first one's batch
        codes = [(await each)[0] for each in late]
        service.go.set()  # this batch took 0.8 s, so the next one is expected to
        while interface.bound.under_way:
            await asyncio.sleep(0.01)
        service.go.clear()
        alone = asyncio.create_task(ask(interface))  # is admitted: nothing is ahead of it
        await asyncio.sleep(0.01)
        code, headers, content = await ask(interface)
        service.go.set()
        return codes, (await alone)[0], code, headers, content, interface.metrics["digits"].dropped

    codes, alone, code, headers, content, dropped = served(service, limits, work)
    assert codes == [504, 504] and dropped == 1 and alone == 200
    assert code == 429 and headers["retry-after"] == "1" and b"more than the 0.8 s" in content


def test_an_image_waits_for_others_no_longer_than_said():
    async def work():
        sizes = []
        batcher = Batcher(lambda images: list(images), 8, 0.05, lambda size, seconds: sizes.append(size))
        task = asyncio.create_task(batcher.run())
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.gather(*(batcher.answered(np.zeros(1)) for _ in range(3)))
        alone = loop.time() - began
        full = loop.time()
        await asyncio.gather(*(batcher.answered(np.zeros(1)) for _ in range(8)))
        full = loop.time() - full
        task.cancel()
        return sizes, alone, full

    sizes, alone, full = asyncio.run(work())
    assert sizes == [3, 8] and alone >= 0.05 > full


def test_the_time_to_try_again_grows_with_what_is_under_way():
    bound = Bound(2)
    bound.answered(1, 3.0)
    with bound.admitted(), bound.admitted():
        with pytest.raises(Busy) as caught, bound.admitted():
            pass
        assert caught.value.seconds == 6


def test_counters_are_in_the_text_format():
    counted = Metrics()
    counted.batched(3, 0.02)
    counted.batched(300, 0.5)
    text = metrics.text({"a": counted}, {"jaxcnn_images_under_way": 2, "jaxcnn_images_waiting": {"a": 1}})
    assert 'images_bucket{model="a",le="4"} 1' in text and 'images_bucket{model="a",le="+Inf"} 2' in text
    assert 'jaxcnn_batch_images_sum{model="a"} 303\n' in text and 'batch_images_count{model="a"} 2\n' in text
    assert 'jaxcnn_images_waiting{model="a"} 1\n' in text and "jaxcnn_images_under_way 2\n" in text
    line = re.compile(r'(# TYPE \w+ \w+|\w+(\{\w+="[^"]+"(,\w+="[^"]+")?\})? [0-9.e+-]+)')
    assert all(line.fullmatch(each) for each in text.splitlines())


def test_the_command_answers_on_a_port_and_ends_with_code_0_on_sigterm(run):
    flags = (f"--workdir={run[0]}", f"--model=again={run[0]}", "--log=json", "--port=0", "--batch=2")
    process = runs.start(*flags, module="jaxcnn.serve")
    told = runs.wait_for(process, "answers on http://")
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", told)[1])
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for path, words in (("/", "Drop an image"), ("/health", "ok"), ("/ready", "ready"), ("/model", '"class_names"')):
        client.request("GET", path)
        reply = client.getresponse()
        assert reply.status == 200 and words in reply.read().decode()
    client.request("POST", "/predict", IMAGE, {"content-type": "image/png"})
    reply = client.getresponse()
    answer = json.loads(reply.read())
    assert reply.status == 200 and 0 < answer["probability"] <= 1
    client.request("POST", "/models/again/predict", IMAGE)
    assert json.loads(client.getresponse().read()) == answer
    code, output = runs.run(f"--workdir={run[0]}/none", f"--port={port}", module="jaxcnn.serve")
    (line,) = output.splitlines()  # before it looks for the run
    assert code == 2 and f"--port={port} cannot be listened on; choose another (Address already in use)" in line
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "answering what has come" in output
    told = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert [(line["model"], line["code"], line["bytes"]) for line in told] == [
        (run[0].name, 200, len(IMAGE)), ("again", 200, len(IMAGE)),
    ]  # fmt: skip
