"""Show the cache folder, and remove files from it.

    python -m jaxcnn.cache                     # kinds, sizes and ages
    python -m jaxcnn.cache --older_than=30d    # remove files not used for 30 days (h: hours)
    python -m jaxcnn.cache --limit_gib=5       # remove least recently used files, decoded images first
    python -m jaxcnn.cache --clean             # remove all

The folder is $JAXCNN_CACHE, or by default ~/.cache/jaxcnn. Runs themselves limit it to $JAXCNN_CACHE_GIB (20). Files in
use by a running process are kept.

Exit codes: 0 done; 2 an error, reported in one line.
"""

from jaxcnn import at_start  # noqa: F401 (imported first: from now on, a signal is reported in one line)

# isort: split

import re
import time

from absl import flags

from jaxcnn import command
from jaxcnn.config import UserError
from jaxcnn.data import cache_limit
from jaxcnn.machine.paths import cache_folder

CLEAN = flags.DEFINE_bool("clean", False, "Remove all files that are not in use.")
OLDER_THAN = flags.DEFINE_string("older_than", "", "Remove files that were not used for this time, such as 30d or 12h.")
LIMIT_GIB = flags.DEFINE_float(
    "limit_gib", None, "Remove the least recently used files until the cache has at most this size.", lower_bound=0
)
_SECONDS = {"h": 3600, "d": 86400}


def main() -> int:
    """Show the cache, and remove files as given by the flags; return the exit code."""
    folder, files = cache_folder(), cache_limit.kept(cache_folder())
    removed = []
    if CLEAN.value or OLDER_THAN.value:
        oldest = time.time() - (0 if CLEAN.value else _seconds(OLDER_THAN.value))
        removed += cache_limit.remove(each for each in files if each.used <= oldest or CLEAN.value)
    if LIMIT_GIB.value is not None:
        left = [each for each in files if each not in removed]
        over = sum(each.size for each in left) - LIMIT_GIB.value * 2**30
        removed += cache_limit.remove(cache_limit.in_order(left), over)
    _show([each for each in files if each not in removed])
    if removed:
        print(f"jaxcnn: removed {_size(removed)}")
    print(f"jaxcnn: {folder}, at most {cache_limit.limit_bytes() / 2**30:g} GiB ({cache_limit.SWITCH})")
    return 0


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d{1,6})([hd])", text)
    if not match:
        raise UserError(f"--older_than={text}: write a number of days or hours, such as 30d or 12h")
    return int(match[1]) * _SECONDS[match[2]]


def _show(files: list[cache_limit.KeptFile]) -> None:
    now = time.time()
    for kind in sorted({each.kind for each in files}):
        of_kind = [each for each in files if each.kind == kind]
        ages = [max(now - each.used, 0) / _SECONDS["d"] for each in of_kind]
        print(f"{kind}: {_size(of_kind)}, used {min(ages):.1f} to {max(ages):.1f} days ago")


def _size(files: list[cache_limit.KeptFile]) -> str:
    plural = "s" if len(files) != 1 else ""
    return f"{len(files)} file{plural}, {sum(each.size for each in files) / 2**30:.2f} GiB"


if __name__ == "__main__":
    command.run(main)
