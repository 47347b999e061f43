"""How much the cache folder keeps: what lies there, what of it is in use, and what goes first."""

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
LEFT_AFTER = 3600.0  # seconds in which nobody touched what a process writes aside, or locks
_DAY = 86400.0
PIXELS, LEFT = "decoded images", "left by processes that were killed"
# By the beginning of a name, or the first folder. What else lies there is not ours.
_KINDS = {
    "pixels-": PIXELS,
    "scan-": "sizes of images",
    "records-": "indexes of records",
    "content-": "checksums of images",
    "compiled": "programs",
}
_log = logging.getLogger("jaxcnn")


@dataclasses.dataclass(frozen=True)
class KeptFile:
    """A file of the cache: its kind in words, bytes, and when it was used last, in seconds since 1970."""

    path: Path
    kind: str
    size: int
    used: float


def limit_bytes() -> float:
    """What the cache may hold, by $JAXCNN_CACHE_GIB.

    Raises:
      UserError: it is no number.
    """
    text = os.environ.get(SWITCH) or str(DEFAULT_GIB)
    with contextlib.suppress(ValueError):
        if (gib := float(text)) >= 0:
            return gib * 2**30
    raise UserError(f"{SWITCH}={text!r} must be a number of GiB, or inf")


def kept(folder: Path) -> list[KeptFile]:
    """All files of the cache, those used last at the end; of other files in the folder nothing is said."""
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
                # JAX does not touch its programs; many file systems note, once a day, that a file was read.
                found.append(KeptFile(path, kind, status.st_size, max(status.st_mtime, status.st_atime)))
    return sorted(found, key=lambda each: each.used)


def keep(folder: Path) -> None:
    """Hold the cache to its limit, and remove what killed processes left; what is in use stays.

    Decoded images go first, those not used for longest before others: they are the largest, and made anew in minutes.
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
            "%s was %.1f GiB above its limit (%s=%g): removed %.1f GiB that were not used for longest (files: %d)",
            folder, over / 2**30, SWITCH, most / 2**30, freed, len(removed),
        )  # fmt: skip


def in_order(files: list[KeptFile]) -> list[KeptFile]:
    """Files in the order in which they go."""
    return sorted(files, key=lambda each: (each.kind != PIXELS, each.used))


def remove(files: Iterable[KeptFile], enough: float = math.inf) -> list[KeptFile]:
    """Remove files that nobody uses, in order, until `enough` bytes are free; return those that are gone."""
    removed: list[KeptFile] = []
    for each in files:
        if enough <= 0:
            break
        if _removed(each):
            removed.append(each)
            enough -= each.size
    return removed


def _removed(file: KeptFile) -> bool:
    """Remove a file unless somebody has a lock on it, or may not show it where there are no locks."""
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
