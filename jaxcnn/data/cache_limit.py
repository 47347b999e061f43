"""The size limit of the cache folder: its files, which of them are in use, and which are removed first."""

import contextlib
import dataclasses
import logging
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path

from jaxcnn.config import UserError
from jaxcnn.machine import locks

SWITCH = "JAXCNN_CACHE_GIB"
DEFAULT_GIB = 20.0
LEFT_AFTER = 3600.0  # seconds without use after which a temporary file or a lock file counts as left over
_DAY = 86400.0
PIXELS, LEFT = "decoded images", "left behind by killed processes"
# Keyed by the beginning of the file name or of the first folder. Other files in the folder are not jaxcnn's.
_KINDS = {
    "pixels-": PIXELS,
    "decoded-": PIXELS,
    "scan-": "sizes of images",
    "records-": "indexes of records",
    "content-": "checksums of images",
    "compiled": "programs",
    "onnxruntime-web-": "ONNX Runtime for the browser",
}
_log = logging.getLogger("jaxcnn")


@dataclasses.dataclass(frozen=True)
class KeptFile:
    """A file of the cache: its kind in words, its size in bytes, and its last use in seconds since 1970."""

    path: Path
    kind: str
    size: int
    used: float


def limit_bytes() -> float:
    """The size limit of the cache in bytes, from $JAXCNN_CACHE_GIB.

    Raises:
      UserError: the variable is not a number of at least 0.
    """
    text = os.environ.get(SWITCH) or str(DEFAULT_GIB)
    with contextlib.suppress(ValueError):
        if (gib := float(text)) >= 0:
            return gib * 2**30
    raise UserError(f"{SWITCH}={text!r} must be a number in GiB, or inf")


def kept(folder: Path) -> list[KeptFile]:
    """The files of the cache, the most recently used last. Other files in the folder are ignored."""
    found = []
    for place, _, names in os.walk(folder):
        for path in (Path(place) / name for name in names):
            first = path.relative_to(folder).parts[0]
            kind = next((kind for start, kind in _KINDS.items() if first.startswith(start)), None)
            if kind is None:
                continue
            with contextlib.suppress(OSError):
                status = path.lstat()
                if path.suffix in (".lock", ".partial"):
                    kind = LEFT
                # JAX does not touch its compiled programs; many file systems record reads once a day (atime).
                found.append(KeptFile(path, kind, status.st_size, max(status.st_mtime, status.st_atime)))
    return sorted(found, key=lambda each: each.used)


def keep(folder: Path) -> None:
    """Reduce the cache to its limit, and remove files left behind by killed processes. Files in use stay.

    Decoded images are removed first, least recently used first: they are the largest and are rebuilt in minutes.
    """
    files, most, now = kept(folder), limit_bytes(), time.time()
    gone = remove(each for each in files if each.kind == LEFT and now - each.used > LEFT_AFTER)
    files = [each for each in files if each not in gone]
    over = sum(each.size for each in files) - most
    if over <= 0:
        return
    removed = remove(in_order(files), over)
    if removed:
        freed = sum(each.size for each in removed) / 2**30
        _log.info(
            "%s was %.1f GiB above its limit (%s=%g): removed the %.1f GiB that had not been used for the longest "
            "time (files: %d)",
            folder, over / 2**30, SWITCH, most / 2**30, freed, len(removed),
        )  # fmt: skip


def in_order(files: list[KeptFile]) -> list[KeptFile]:
    """Files in the order of removal."""
    return sorted(files, key=lambda each: (each.kind != PIXELS, each.used))


def remove(files: Iterable[KeptFile], enough: float = math.inf) -> list[KeptFile]:
    """Remove unused files, in order, until `enough` bytes are freed; return the removed ones."""
    removed: list[KeptFile] = []
    for each in files:
        if enough <= 0:
            break
        if _removed(each):
            removed.append(each)
            enough -= each.size
    return removed


def _removed(file: KeptFile) -> bool:
    """Remove a file, unless it is locked or may be in use on a file system without locks; return whether it is gone."""
    try:
        with file.path.open("r+b") as opened:
            try:
                unused = locks.take(opened, wait=False)
            except locks.NoLocksError:
                unused = time.time() - file.used >= _DAY
            if not unused:
                return False
            file.path.unlink()
    except OSError:
        return False
    return True
