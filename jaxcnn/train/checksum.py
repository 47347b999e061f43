"""The CRC-32 of a JSON object, stored in the object itself as "crc32"."""

import json
import zlib
from typing import Any


def crc32_of(value: dict[str, Any]) -> int:
    """The CRC-32 of a JSON object without its "crc32"; equal before writing and after reading."""
    rest = {name: part for name, part in value.items() if name != "crc32"}
    return zlib.crc32(json.dumps(rest, sort_keys=True).encode())


def is_whole(value: dict[str, Any]) -> bool:
    """Whether a JSON object is as it was written; objects of older versions, without a checksum, are accepted."""
    return "crc32" not in value or value["crc32"] == crc32_of(value)
