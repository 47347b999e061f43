"""A client of the server for `benchmarks.serve_load`: many connections, good and bad requests, every answer checked."""

import asyncio
import collections
import dataclasses
import io
import json
import random
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

TOLERANCE = 1e-3  # tolerance of a probability: sums in another batch size round differently, and few are near 0 or 1
MOST_KEPT = 5  # most unexpected replies kept of each kind
SECONDS = 60.0  # a reply that takes longer is a failure


@dataclasses.dataclass
class Heard:
    """The replies that came back.

    Attributes:
      codes: number of replies by status; 0: the connection ended without one.
      seconds: seconds from the request to the answer, for requests that were answered.
      wrong: number of answers that differ from those of the run.
      told: errors that reveal the inside of the server.
      unexpected: the first replies with another code than was expected.
    """

    codes: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    seconds: list[float] = dataclasses.field(default_factory=list)
    wrong: int = 0
    told: int = 0
    unexpected: list[str] = dataclasses.field(default_factory=list)

    def count(self, code: int, content: bytes) -> None:
        """Count a reply by its code, and whether it reveals the inside of the server."""
        self.codes[code] += 1
        self.told += b"Traceback" in content or b'File "' in content


def png(pixels: np.ndarray) -> bytes:
    """An image [H, W, C] of 1 or 3 channels as PNG."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def black(width: int, height: int) -> bytes:
    """A PNG of one bit for each pixel, made without the pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def npy(array: np.ndarray) -> bytes:
    """An array as a `.npy` file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def form(images: Sequence[bytes]) -> tuple[bytes, str]:
    """The images as a form, and its content type."""
    head = b'--edge\r\ncontent-disposition: form-data; name="image"; filename="image"\r\n\r\n'
    return b"".join(head + image + b"\r\n" for image in images) + b"--edge--\r\n", "multipart/form-data; boundary=edge"


def is_right(answer: Any, wanted: dict[str, Any]) -> bool:
    """Whether an answer equals that of the run, up to rounding."""
    return (
        isinstance(answer, dict)
        and answer.get("label") == wanted["label"]
        and abs(answer["probability"] - wanted["probability"]) <= TOLERANCE
    )


class Connection:
    """A connection that is opened again whenever it has ended."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes, kind: str, path: str = "/predict") -> tuple[int, bytes]:
        """Status and body of the reply; status 0 if the connection ended first."""
        head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
        return await self.send(head.encode() + body)

    async def send(self, content: bytes) -> tuple[int, bytes]:
        """Send the bytes of a request; return the status and body of the reply, as `ask` does."""
        try:
            async with asyncio.timeout(SECONDS):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._streams
                writer.write(content)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = int(head.partition("content-length: ")[2].partition("\r")[0])
                reply = await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            self.close()
            return 0, b""
        if "connection: close" in head:
            self.close()
        return int(head.split()[1]), reply

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def pressed(
    port: int, images: Sequence[bytes], wanted: Sequence[dict[str, Any]], connections: int, seconds: float
) -> tuple[Heard, float]:
    """Ask on all connections at once, each again after a reply; return what came and the seconds it took."""
    heard, began = Heard(), time.perf_counter()

    async def one(first: int) -> None:
        connection, number = Connection(port), first
        while time.perf_counter() < began + seconds:
            number = (number + 1) % len(images)
            asked = time.perf_counter()
            code, reply = await connection.ask(images[number], "image/png")
            heard.count(code, reply)
            if code == 200:
                heard.seconds.append(time.perf_counter() - asked)
                heard.wrong += not is_right(json.loads(reply), wanted[number])
        connection.close()

    await asyncio.gather(*(one(number) for number in range(connections)))
    return heard, time.perf_counter() - began


Case = Callable[[Connection, random.Random], Awaitable[tuple[int, bytes]]]


class Mixture:
    """Requests of every kind: valid, of many images, broken, of wrong types, huge, and of clients that leave."""

    def __init__(
        self, port: int, images: Sequence[bytes], pixels: np.ndarray, wanted: Sequence[dict[str, Any]]
    ) -> None:
        self._port, self._images, self._pixels, self._wanted = port, images, pixels, wanted
        self._huge = black(30_000, 3_000)  # 11 KB as a file, 90 megapixels when it is decoded
        self.heard: dict[str, Heard] = collections.defaultdict(Heard)
        self.cases: dict[str, tuple[Case, int]] = {
            "one image": (self._one, 200),
            "a form of four images": (self._form, 200),
            "an array of four images": (self._array, 200),
            "an image cut off": (self._cut, 422),
            "random bytes": (self._noise, 422),
            "an array whose header lies": (self._liar, 422),
            "a form without an end": (self._open_form, 422),
            "an image of 90 megapixels": (self._of_huge, 422),
            "another content type": (self._typed, 415),
            "a body that is too long": (self._long, 413),
            "no HTTP": (self._no_http, 400),
            "a client that leaves": (self._leaves, 0),
        }

    async def asked(self, requests: int, connections: int = 8, seed: int = 0) -> None:
        """Send `requests` requests, one of each kind in turns."""
        names = [name for _, name in zip(range(requests), _turns(self.cases), strict=False)]

        async def one(worker: int) -> None:
            connection, generator = Connection(self._port), random.Random(f"{seed} {worker}")
            for name in names[worker::connections]:
                case, expected = self.cases[name]
                code, reply = await case(connection, generator)
                self.heard[name].count(code, reply)
                if code != expected and len(self.heard[name].unexpected) < MOST_KEPT:
                    self.heard[name].unexpected.append(f"{code} {reply[:200].decode(errors='replace')}")
            connection.close()

        await asyncio.gather(*(one(worker) for worker in range(connections)))

    def _judged(self, name: str, reply: tuple[int, bytes], numbers: Sequence[int]) -> tuple[int, bytes]:
        if reply[0] == 200:
            answers = json.loads(reply[1])
            answers = answers if isinstance(answers, list) else [answers]
            right = [is_right(answer, self._wanted[n]) for answer, n in zip(answers, numbers, strict=True)]
            self.heard[name].wrong += not all(right)
        return reply

    async def _one(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        number = generator.randrange(len(self._images))
        return self._judged("one image", await connection.ask(self._images[number], "image/png"), [number])

    async def _form(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        numbers = [generator.randrange(len(self._images)) for _ in range(4)]
        body, kind = form([self._images[number] for number in numbers])
        return self._judged("a form of four images", await connection.ask(body, kind), numbers)

    async def _array(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        numbers = [generator.randrange(len(self._images)) for _ in range(4)]
        reply = await connection.ask(npy(self._pixels[numbers]), "application/x-npy")
        return self._judged("an array of four images", reply, numbers)

    async def _cut(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        image = generator.choice(self._images)
        return await connection.ask(image[: generator.randrange(len(image) // 2)], "image/png")

    async def _noise(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        return await connection.ask(generator.randbytes(generator.randrange(5_000)), "image/jpeg")

    async def _liar(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        array = npy(self._pixels[:1]).replace(b"'shape': (1,", b"'shape': (9,")
        return await connection.ask(array, "application/octet-stream")

    async def _open_form(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        body, kind = form([generator.choice(self._images)])
        return await connection.ask(body[:-6], kind)

    async def _of_huge(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        return await connection.ask(self._huge, "image/png")

    async def _typed(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        return await connection.ask(generator.choice(self._images), "application/json")

    async def _long(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        return await connection.send(b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999\r\n\r\n")

    async def _no_http(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        connection.close()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(b"\x16\x03\x01" + generator.randbytes(200) + b"\r\n\r\n")
            reply = await asyncio.wait_for(reader.read(), SECONDS)  # until it is closed
            writer.transport.abort()
        except (OSError, TimeoutError):
            return 0, b""
        return (int(reply.split()[1]) if reply.startswith(b"HTTP/1.1 ") else 0), reply

    async def _leaves(self, connection: Connection, generator: random.Random) -> tuple[int, bytes]:
        connection.close()
        image = generator.choice(self._images)
        head = f"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\ncontent-length: {len(image)}\r\n\r\n"
        whole = head.encode() + image
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(whole[: generator.randrange(1, len(whole))])
            await asyncio.sleep(generator.random() / 100)
            writer.transport.abort()
        except OSError:
            pass
        return 0, b""


def _turns(cases: dict[str, Any]) -> Any:
    while True:
        yield from cases
