"""Requests of many images, servers of many networks, and what is told of both: as exact and as bounded as one image."""

import asyncio
import contextlib
import io
import json
import socket

import jsonschema
import numpy as np
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn.config import UserError
from jaxcnn.serve import connections, models, openapi, receive
from jaxcnn.serve.app import Limits
from jaxcnn.serve.bound import Bound
from jaxcnn.serve.request_log import RequestLog
from tests.test_serve import IMAGE, Slow, ask, png, run, served, service  # noqa: F401 (fixtures)

LIMITS = Limits(body=2_000, seconds=5.0, requests=6, wait=0.0, images=4, whole=6_000)
FORM = "multipart/form-data; boundary=edge"
ARRAY, RAW = "application/x-npy", "application/octet-stream"


def form(*images, name="image", end=b"--edge--\r\n"):
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"; filename="cat\\nsecret.png"\r\n\r\n'.encode()
    return b"".join(head + each + b"\r\n" for each in images) + end


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def pixels(count):
    return np.random.default_rng(count).integers(0, 255, (count, 8, 8, 1), np.uint8)


def close(answer, other):
    # float32 sums of another batch size round otherwise.
    return answer["label"] == other["label"] and answer["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_images_of_a_form_or_an_array_have_the_answers_that_each_has_alone_in_their_order(service):  # noqa: F811
    images = pixels(3)
    encoded = [png(image[..., 0]) for image in images]

    async def work(interface):
        alone = [await ask(interface, each) for each in encoded]
        in_form = await ask(interface, form(encoded[0], b"no image", *encoded[1:]), content_type=FORM)
        one_in_form = await ask(interface, form(encoded[2]), content_type=FORM)
        arrays = [
            await ask(interface, npy(stack), content_type=kind)
            for stack, kind in ((images, ARRAY), (np.asfortranarray(images), RAW))
        ]
        one = await ask(interface, npy(images[1]), content_type=ARRAY)
        twice = images[1:2].repeat(2, axis=1).repeat(2, axis=2)
        larger = [
            await ask(interface, body, content_type=kind)
            for body, kind in ((npy(twice), ARRAY), (png(twice[0, ..., 0]), RAW))
        ]
        assert interface.bound.under_way == interface.bound.requests == 0
        return [
            [json.loads(each[2]) for each in some] for some in (alone, [in_form, one_in_form], arrays, [one, *larger])
        ]

    alone, (in_form, one_in_form), arrays, (one, larger, as_image) = served(service, LIMITS, work)
    assert "no image that can be read" in in_form.pop(1)["error"]
    assert len(in_form) == 3 and all(map(close, in_form, alone))
    assert len(one_in_form) == 1 and close(one_in_form[0], alone[2])
    assert all(len(each) == 3 and all(map(close, each, alone)) for each in arrays)
    assert close(one, alone[1]) and len(larger) == 1 and close(larger[0], as_image)  # resized as an image is


HEADER = npy(pixels(1))[:128]


@pytest.mark.parametrize(
    ("body", "kind", "code", "words"),
    [
        (form(IMAGE), "multipart/form-data", 422, "no boundary"),
        (form(IMAGE), f"multipart/form-data; boundary={'x' * 300}", 422, "no form that can be read"),
        (b"something else", FORM, 422, "no form that can be read"),
        (form(IMAGE)[:-10], FORM, 422, "it has no end"),
        (form(IMAGE, end=b""), FORM, 422, "it has no end"),
        (form(), FORM, 422, "the form has no image"),
        (b"", FORM, 422, "it has no end"),
        (form(*[IMAGE] * 5), FORM, 413, "at most 4 images"),
        (form(b"x" * 2_001), FORM, 413, "an image may have at most 2,000 bytes"),
        (form(*[b"x" * 1_900] * 3) + b"x" * 500, FORM, 413, "a request may have at most 6,000 bytes"),
        (form(IMAGE, name="x" * 5_000), FORM, 422, "no form that can be read"),
        (npy(pixels(5)), ARRAY, 413, "at most 4 images"),
        (npy(np.zeros((1, 60, 60, 1), np.uint8)), ARRAY, 413, "an image may have at most 2,000 bytes"),
        (
            npy(np.zeros((60, 60, 1), np.uint8)),
            "application/octet-stream",
            413,
            "an image may have at most 2,000 bytes",
        ),
        (npy(np.zeros((100, 100, 1), np.uint8)), ARRAY, 413, "a request may have at most 6,000 bytes"),
        (npy(pixels(2))[:-1], ARRAY, 422, "it is truncated"),
        (npy(pixels(2))[:20], ARRAY, 422, "no image that can be read"),
        (npy(pixels(2).astype(np.int64)), ARRAY, 422, "its pixels are int64"),
        (npy(np.zeros((2, 8, 8, 3), np.uint8)), ARRAY, 422, "it has 3 channels, not 1"),
        (npy(np.zeros((2, 8), object)), ARRAY, 422, "an array of object"),
        (npy(np.zeros((0, 8, 8, 1), np.uint8)), ARRAY, 422, "of shape (0, 8, 8, 1)"),
        (npy(np.zeros((2, 2, 8, 8, 1), np.uint8)), ARRAY, 422, "not an image"),
        (npy(np.zeros((3, 8, 8, 1), "V0")), ARRAY, 422, "not an image"),
        (HEADER.replace(b"(1, 8, 8, 1)", b"(1 << 40,)  "), ARRAY, 422, "no image that can be read"),
        (HEADER.replace(b"(1, 8, 8, 1)", b"(9999999999,8,8,1)"), ARRAY, 422, "no image that can be read"),
        (b"\x93NUMPY\x01\x00" + (9_000).to_bytes(2, "little") + b"(" * 1_900, ARRAY, 422, "no image that can be read"),
        (b"\x93NUMPY\x07\x00" + bytes(200), ARRAY, 422, "no image that can be read"),
        (IMAGE, "application/json", 415, "several images as multipart/form-data"),
    ],
)
def test_a_form_or_an_array_that_cannot_be_answered_is_told_in_one_line_and_holds_nothing(
    service, body, kind, code, words  # noqa: F811
):  # fmt: skip
    async def work(interface):
        result = await ask(interface, body, content_type=kind)
        assert interface.bound.under_way == interface.bound.requests == 0
        return result

    found, _, content = served(service, LIMITS, work)
    text = content.decode()
    assert (found, words in text) == (code, True), text
    assert "Traceback" not in text and "\n" not in text.strip() and list(json.loads(text)) == ["error"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4), st.integers(1, 40))
def test_a_form_is_read_alike_however_it_is_cut_on_its_way(contents, step):
    bound, whole = Bound(9), form(*contents)
    with bound.admitted() as held:
        read = receive.Form(FORM, LIMITS, held)
        for start in range(0, len(whole), step):
            read.add(whole[start : start + step], start + step if start + step < 6_000 else 6_000)
        assert read.contents() == contents and bound.under_way == held.places == len(contents)
    assert bound.under_way == 0


def test_a_request_takes_a_place_for_each_image_and_for_bytes_that_have_come():
    service = Slow()  # noqa: F811

    async def work(interface):
        many = asyncio.create_task(ask(interface, form(*[IMAGE] * 4), content_type=FORM))
        await asyncio.sleep(0.05)
        places = [interface.bound.under_way]
        refused = await ask(interface, form(*[IMAGE] * 3), content_type=FORM)
        alone = [asyncio.create_task(ask(interface)) for _ in range(3)]
        await asyncio.sleep(0.05)
        places.append(interface.bound.under_way)
        service.go.set()
        codes = [(await each)[0] for each in (many, *alone)]
        waits = asyncio.create_task(
            ask(interface, parts=[b"\x93NUMPY" + b"x" * 3_000], leaves=True, content_type=ARRAY)
        )
        await asyncio.sleep(0)
        return places, refused[:2], codes, (await waits)[0]

    places, (code, headers), codes, left = served(service, LIMITS, work)
    assert places == [4, 6] and code == 429 and int(headers["retry-after"]) >= 1
    assert sorted(codes) == [200, 200, 200, 429] and codes[0] == 200 and left == 499


def test_places_follow_bytes():
    bound = Bound(3)
    with bound.admitted() as held:
        for wanted, under_way in ((1, 1), (3, 3), (2, 3)):
            held.at_least(wanted)
            assert bound.under_way == under_way
        with pytest.raises(Exception, match="3 of 3 images are under way"):
            held.at_least(4)
    assert bound.under_way == 0


class Named(Slow):
    """A network whose answers are its name."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.go.set()

    def answers(self, images):
        return [{"answer": self.name}] * len(images)

    def facts(self):
        return {"model": "cnn", "step": 1, "task": "regression", "class_names": [], "image_shape": [8, 8, 1]}


def test_networks_are_asked_by_name_and_counted_by_name_under_one_bound():
    async def work(interface):
        told = [await ask(interface, path=path) for path in ("/predict", "/models/b/predict", "/models/c/predict")]
        seen = [
            await ask(interface, path=path, method="GET") for path in ("/models", "/models/b", "/model", "/models/c")
        ]
        text = (await ask(interface, path="/metrics", method="GET"))[2].decode()
        return [(code, json.loads(content)) for code, _, content in told + seen], text

    told, text = served({"a": Named("a"), "b": Named("b")}, LIMITS, work)
    assert told[:2] == [(200, {"answer": "a"}), (200, {"answer": "b"})]
    missing = (404, {"error": "there is no network of this name; there are: a, b"})
    assert told[2] == told[6] == missing
    assert [each["name"] for each in told[3][1]] == ["a", "b"] and told[3][1] == [told[5][1], told[4][1]]
    lines = text.splitlines()
    for line in ('{model="a",code="200"} 1', '{model="b",code="200"} 1', '{model="",code="404"} 1'):
        assert f"jaxcnn_responses_total{line}" in lines
    assert 'jaxcnn_images_total{model="b"} 1' in lines and 'jaxcnn_batch_images_count{model="a"} 1' in lines


def test_the_address_of_a_server_is_a_url():
    assert connections.address("::1", 8000) == "http://[::1]:8000/"
    assert connections.address("127.0.0.1", 80) == "http://127.0.0.1:80/"


def test_networks_are_named_by_flags_or_by_their_folder(tmp_path):
    file = tmp_path / "b" / "model.onnx"
    file.parent.mkdir()
    file.touch()
    (tmp_path / "b" / "config.json").touch()
    found = models.places(f"{tmp_path}/-a b", "", [f"b={tmp_path}/b", f"int8={file}"])
    assert [(each.name, each.folder.name, each.file) for each in found] == [
        ("a-b", "-a b", None), ("b", "b", None), ("int8", "b", file),
    ]  # fmt: skip
    (tmp_path / "b" / "config.json").unlink()
    alone = models.places("", f"{tmp_path}/net v2.onnx", [f"int8={file}"])
    assert [(each.name, each.folder) for each in alone] == [("net-v2", None), ("int8", None)]
    for workdir, of_file, flags, words in (
        ("", "", [], "--workdir=<folder of a run> is missing"),
        ("", "", ["runs/a"], "has no name and folder"),
        ("", "", ["a="], "has no name and folder"),
        ("", "", ["a/b=c"], "a name has up to 64 letters"),
        ("", "", ['a"\n=c'], "a name has up to 64 letters"),
        ("", "", ["a=b", "a=c"], "two networks have the name a"),
        ("runs/a", "", ["a=c"], "two networks have the name a"),
    ):
        with pytest.raises(UserError) as caught:
            models.places(workdir, of_file, flags)
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_description_has_every_path_and_real_answers_are_as_it_says(service):  # noqa: F811
    limits = Limits(body=2_000, seconds=5.0, requests=6, wait=0.0, token="secret")

    async def work(interface):
        app = interface.app_made
        replies = {
            "/predict": await ask(interface, authorization="Bearer secret"),
            "/models/{name}/predict": await ask(
                interface,
                form(IMAGE, b"no"),
                "/models/digits/predict",
                content_type=FORM,
                authorization="Bearer secret",
            ),
            "/models": await ask(interface, path="/models", method="GET"),
            "/models/{name}": await ask(interface, path="/models/digits", method="GET"),
            "refused": await ask(interface),
        }
        told = json.loads((await ask(interface, path="/openapi.json", method="GET"))[2])
        page = (await ask(interface, path="/docs", method="GET"))[2].decode()
        return {route.path for route in app.routes}, replies, told, page

    paths, replies, told, page = served(service, limits, work)
    assert set(told["paths"]) == paths - {"/", "/docs", "/openapi.json"} and told["openapi"].startswith("3.1.")
    assert told["components"]["securitySchemes"] and "token" not in openapi.document({"a": "x"}, LIMITS)["components"]
    operations = [one for item in told["paths"].values() for verb, one in item.items() if verb in ("get", "post")]
    assert len({one["operationId"] for one in operations}) == len(operations) == len(told["paths"])
    assert all(one["summary"] and one["responses"]["200"]["description"] for one in operations)
    assert all({"400", "503"} <= set(one["responses"]) for one in operations)

    def valid(content, schema):
        checker = jsonschema.Draft202012Validator({**schema, "components": told["components"]})
        checker.validate(json.loads(content))

    def schema_of(path, verb, code="200"):
        return told["paths"][path][verb]["responses"][code]["content"]["application/json"]["schema"]

    valid(connections.FULL.partition(b"\r\n\r\n")[2], schema_of("/predict", "post", "503"))
    for path, (code, _, content) in replies.items():
        if path == "refused":
            assert code == 401
            valid(content, schema_of("/predict", "post", "401"))
        else:
            assert code == 200
            valid(content, schema_of(path, "post" if "predict" in path else "get"))
            with pytest.raises(jsonschema.ValidationError):
                valid('{"label": 3}', schema_of(path, "post" if "predict" in path else "get"))
    assert "openapi.json" in page and "://" not in page  # nothing comes from elsewhere


def test_each_request_is_a_line_of_json_without_what_the_client_sent():
    stream = io.StringIO()
    limits = Limits(body=2_000, seconds=5.0, requests=6, wait=0.0, token="to\nkEn")

    async def work(interface):
        for body, kind, path, token in (
            (IMAGE, "image/png", "/predict", "to\nkEn"),
            (form(IMAGE, IMAGE), FORM, "/models/a/predict", "to\nkEn"),
            (IMAGE, 'text/"\n', "/models/a/predict", "to\nkEn"),
            (IMAGE, "image/png", "/models/zz\n/predict", "to\nkEn"),
            (IMAGE, "image/png", "/predict", "hidden"),
        ):
            await ask(interface, body, path, content_type=kind, authorization=f"Bearer {token}")
        await ask(interface, path="/health", method="GET")

    served({"a": Named("a")}, limits, work, RequestLog(stream))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    told = [(line["model"], line["code"], line["images"], line["bytes"]) for line in lines]
    size = len(form(IMAGE, IMAGE))
    assert told == [("a", 200, 1, len(IMAGE)), ("a", 200, 2, size), ("a", 415, 0, 0), ("", 404, 0, 0), ("a", 401, 0, 0)]
    assert all(line["milliseconds"] >= 0 and line["time"].endswith("+00:00") for line in lines)
    assert ["error" in line for line in lines] == [False, False, True, True, True]
    assert not any(each in stream.getvalue() for each in ("kEn", "hidden", "secret", "zz", "text/"))


def test_another_content_type_is_named_in_the_answer_in_one_short_line():
    for kind, words in (
        ("Text/HTML; charset=a", "the content type text/html cannot be read; send one image"),
        ('a"\n', 'the content type a" cannot'),
        ("a\0b", r"the content type a\x00b cannot"),
        ("", "the content type is empty; send"),
        ("x" * 900, f"the content type {'x' * 80} cannot be read"),
    ):
        with pytest.raises(receive.Refused) as caught:
            receive.kind_of({"content-type": kind})
        assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400
        assert all(each in str(caught.value) for each in ("image/…", receive.RAW, receive.ARRAY, receive.FORM))
        assert "cannot be read" not in caught.value.logged


def test_an_address_is_taken_at_once_or_refused_in_one_line():
    with contextlib.ExitStack() as stack:
        several = [stack.enter_context(each) for each in connections.taken("localhost", 0)]
        (port,) = {each.getsockname()[1] for each in several}
        several[0].listen()
        for host, number, reason in (
            ("localhost", port, "Address already in use"),
            ("1.2.3.4", port, "Cannot assign requested address"),
            ("no such host", 0, "Name or service not known"),
            ("a" * 70, 0, "it is no name of a host"),
        ):
            with pytest.raises(UserError) as caught:
                connections.taken(host, number)
            told = f"--host={host} --port={number} cannot be listened on; choose another ({reason})"
            assert str(caught.value) == told


@contextlib.asynccontextmanager
async def listening(app, protocol):
    """An application behind uvicorn in this event loop: its port, and the server."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        config = uvicorn.Config(app, log_level="critical", http=protocol, ws="none", lifespan="off")
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[place])
        yield place.getsockname()[1], server
        await server.shutdown(sockets=[place])


def test_a_connection_without_a_request_is_closed_after_its_time_and_others_are_not():
    async def app(scope, receive, send):
        await receive()
        await asyncio.sleep(0.5)  # longer than a client may be idle
        size = 20_000_000 if scope["path"] == "/large" else 2
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": b"x" * size})

    async def ends(port, sent, reads=True):
        """What a connection gives until it is closed, and after how long."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
        began = asyncio.get_running_loop().time()
        for part in sent:
            if not reader.at_eof():
                writer.write(part)
            await asyncio.sleep(0.05)
        if not reads:
            writer.transport.pause_reading()
            return None
        got = b""
        try:
            while part := await reader.read(1 << 16):
                got += part
        except ConnectionError:
            pass
        writer.close()
        return got[:12], asyncio.get_running_loop().time() - began

    async def work():
        request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
        async with listening(app, connections.protocol(0.3, most=9)) as (port, server):
            silent, slow, asks, twice, _ = await asyncio.gather(
                ends(port, []),
                ends(port, [b"GET / HTTP/1.1\r\n", *[b"a: b\r\n"] * 20]),
                ends(port, [request]),
                ends(port, [request + request]),
                ends(port, [request.replace(b"/ ", b"/large ", 1)], reads=False),
            )
            await asyncio.sleep(1.0)  # 0.5 s for the answer that is not read, 0.3 s until it is given up
            return silent, slow, asks, twice, len(server.server_state.connections)

    silent, slow, asks, twice, left = asyncio.run(work())
    assert silent[0] == slow[0] == b"" and silent[1] >= 0.29 and slow[1] >= 0.29
    assert asks[0] == twice[0] == b"HTTP/1.1 200" and asks[1] >= 0.8 and twice[1] >= 1.3
    assert left == 0


def test_connections_above_their_number_are_told_so_and_others_go_on():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def work():
        async with listening(app, connections.protocol(5.0, most=2)) as (port, server):
            streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
            replies = []
            for reader, writer in reversed(streams):
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 400000\r\n\r\n" + b"x" * 400_000)
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
                replies.append((head[9:12], body))
            for _, writer in streams:
                writer.close()
            await asyncio.sleep(0.05)
            return replies, len(server.server_state.connections)

    replies, left = asyncio.run(work())
    full = (b"503", b'{"error":"there are too many connections"}')
    assert replies == [full, full, (b"200", b"ok"), (b"200", b"ok")] and left == 0
