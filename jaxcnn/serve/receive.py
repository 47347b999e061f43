"""Reads the body of a request within bounds on what a client may send: an image, an array, or a form of images."""

import asyncio
import dataclasses
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from jaxcnn.data.as_stored import NPY
from jaxcnn.serve.bound import Held
from jaxcnn.text import shown

if TYPE_CHECKING:
    from starlette.requests import Request

MOST_OF_KIND = 80  # letters of a content type that an answer repeats
RAW, ARRAY, FORM = "application/octet-stream", "application/x-npy", "multipart/form-data"


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits on what a client may send.

    Attributes:
      body: largest size of an image, bytes.
      seconds: longest time for a body to arrive, seconds.
      requests: most images processed at once, in all requests.
      wait: longest time that an image waits for others, seconds.
      token: token that a client must send; empty: none.
      images: most images of one request.
      whole: largest size of a request with many images, bytes.
      deadline: longest time from a whole request to its answer, seconds; 0: none.
    """

    body: int = 16 * 2**20
    seconds: float = 10.0
    requests: int = 256
    wait: float = 0.002
    token: str = ""
    images: int = 64
    whole: int = 64 * 2**20
    deadline: float = 0.0


class Refused(Exception):
    """Raised to answer a request with an error code, its reason and headers.

    Attributes:
      code, headers: code and headers of the answer.
      logged: the reason for the log, which has no words of a client.
    """

    def __init__(self, code: int, why: str, logged: str = "", **headers: str) -> None:
        super().__init__(why)
        self.code, self.headers, self.logged = code, headers, logged or why


class Sent(NamedTuple):
    """What a client sent: encoded images, their bytes, and whether they came in a form."""

    contents: list[bytes]
    size: int
    form: bool = False


def kind_of(headers: Mapping[str, str]) -> str:
    """The content type of a request, if it can be answered.

    Raises:
      Refused: it cannot.
    """
    kind = headers.get("content-type", RAW).partition(";")[0].strip().lower()
    if kind not in (RAW, ARRAY, FORM) and not kind.startswith("image/"):
        accepted = (
            f"send one image as the body, with the content type image/… or {RAW}, an array as {ARRAY}, or several "
            f"images as {FORM}"
        )
        given = f"the content type {shown(kind[:MOST_OF_KIND])} cannot be read" if kind else "the content type is empty"
        raise Refused(415, f"{given}; {accepted}", accepted)
    return kind


async def received(request: "Request", limits: Limits, held: Held) -> Sent:
    """The images of a request, which takes one place for each image and for each `limits.body` bytes.

    Raises:
      Refused: the request has another content type, is too large, has too many images, is too slow, or is not the form
        that it claims.
      Busy: too few places are free.
    """
    kind = kind_of(request.headers)
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > (limits.body if kind.startswith("image/") else limits.whole):
        raise _too_large(kind, limits)
    body = Form(request.headers["content-type"], limits, held) if kind == FORM else Whole(kind, limits)
    size = 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                size += len(part)
                held.at_least(-(-size // limits.body))
                body.add(part, size)
    except TimeoutError:
        what = "image" if kind.startswith("image/") else "body"
        raise Refused(408, f"the {what} did not arrive within {limits.seconds:g} s") from None
    return Sent(body.contents(), size, kind == FORM)


async def left(request: "Request") -> None:
    """Return when the client of a request whose body was read has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _too_large(kind: str, limits: Limits) -> Refused:
    if kind in (ARRAY, FORM):
        return Refused(413, f"a request may have at most {limits.whole:,} bytes")
    return Refused(413, f"an image may have at most {limits.body:,} bytes")


class Whole:
    """A body that is one image or one array."""

    def __init__(self, kind: str, limits: Limits) -> None:
        self._kind, self._limits, self._parts, self._begin = kind, limits, list[bytes](), b""

    def add(self, part: bytes, size: int) -> None:
        """Take a part of the body, which then has `size` bytes.

        Raises:
          Refused: the body is too large.
        """
        self._parts.append(part)
        if len(self._begin) < len(NPY):
            self._begin = (self._begin + part)[: len(NPY)]
        kind = ARRAY if self._kind == RAW and self._begin == NPY else self._kind
        if size > (self._limits.whole if kind == ARRAY else self._limits.body):
            raise _too_large(kind, self._limits)

    def contents(self) -> list[bytes]:
        """The whole body as the only content."""
        return [b"".join(self._parts)]


class Form:
    """A body of the type multipart/form-data, each part of which is an image, whatever its name."""

    def __init__(self, content_type: str, limits: Limits, held: Held) -> None:
        from python_multipart import multipart

        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs the errors of clients
        self._limits, self._held, self._images, self._ended = limits, held, list[bytearray](), False
        boundary = multipart.parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise Refused(422, "the content type of the form has no boundary")
        self._wrong = multipart.FormParserError
        callbacks: multipart.MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_end": self._end,
        }
        try:
            self._parser = multipart.MultipartParser(boundary, callbacks)
        except self._wrong as error:
            raise Refused(422, f"this is no form that can be read: {error}") from None

    def _begin(self) -> None:
        if len(self._images) >= self._limits.images:
            raise Refused(413, f"a request may have at most {self._limits.images} images")
        self._images.append(bytearray())
        self._held.at_least(len(self._images))

    def _data(self, data: bytes, start: int, end: int) -> None:
        image = self._images[-1]
        if len(image) + end - start > self._limits.body:
            raise _too_large(RAW, self._limits)
        image += data[start:end]

    def _end(self) -> None:
        self._ended = True

    def add(self, part: bytes, size: int) -> None:
        """Take a part of the form, which then has `size` bytes.

        Raises:
          Refused: the form is too large or malformed.
          Busy: too few places are free.
        """
        if size > self._limits.whole:
            raise _too_large(FORM, self._limits)
        try:
            self._parser.write(part)
        except self._wrong as error:
            raise Refused(422, f"this is no form that can be read: {error}") from None

    def contents(self) -> list[bytes]:
        """The images of the form.

        Raises:
          Refused: the form has no image or was cut off.
        """
        if not self._ended:
            raise Refused(422, "this is no form that can be read: it has no end")
        if not self._images:
            raise Refused(422, "the form has no image")
        return [bytes(image) for image in self._images]
