"""The SHA-256 that an ONNX file holds of itself, by which a damaged one is refused; needs neither JAX nor ONNX."""

import hashlib
import pathlib
import re

from jaxcnn.config import UserError
from jaxcnn.text import shown

NO_DIGEST = "0" * 64  # in the place of the SHA-256 of an ONNX file while this is computed
_DIGEST = re.compile(rb"sha256\x12@([0-9a-f]{64})")  # as protobuf writes the fact: "@" is its length


def sealed(content: bytes) -> bytes:
    """An ONNX file whose fact "sha256" is `NO_DIGEST`, with the SHA-256 of these bytes there instead."""
    return content.replace(NO_DIGEST.encode(), hashlib.sha256(content).hexdigest().encode())


def checked(path: pathlib.Path) -> bytes:
    """The bytes of an ONNX file. Raises UserError if they are not those that were written."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be read: {error.strerror}") from error
    found = _DIGEST.search(content)
    if found is None or sealed(content.replace(found[1], NO_DIGEST.encode())) != content:
        raise UserError(f"{shown(str(path))} is damaged, or no file of jaxcnn.export; export the run again")
    return content
