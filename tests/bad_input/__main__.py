"""Give jaxcnn wrong configs and damaged files: each is a right result or one line, never a traceback, hang or bomb.

    python -m tests.bad_input --cases=4000 --seed=1 [--images=<folder of images>] [--page=results/bad_input.md]

Counts are kept beside the page, as .jsonl: the page tells of all that were ever kept there.

Half of the cases are configs, half are files, in this process; some more are in processes of their own
(`--processes`). Exit code 1: there was a defect.
"""

import argparse
import os
import pathlib
import random
import tempfile
from collections.abc import Iterator

from tests import conftest
from tests.bad_input import config_cases, mutations, outcome, processes, readers
from tests.bad_input.page import Told, counted, kept, page

NAMES = ("cases", "seed", "only")  # of the flags that the page tells as they are


def of_configs(number: int, seed: int) -> Iterator[Told]:
    """Cases of configs."""
    for words, tree in config_cases.cases(number, seed):
        yield "config", words, *outcome.of(lambda tree=tree: config_cases.accept(tree), lines=True)


def of_files(number: int, seed: int, images: pathlib.Path | None, only: str = "") -> Iterator[Told]:
    """Cases of files, every kind in turn."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        found = readers.made(pathlib.Path(folder), images, only)
        whole = sum(reader.share for reader in found.values())
        for name, reader in found.items():
            state, why = outcome.of(reader.read)
            assert state == outcome.ACCEPTED, f"{name}: the sound file is not read: {why}"
            generator = random.Random(f"{seed}-{name}")
            for _ in range(round(number * reader.share / whole)):
                yield name, *_case(reader, generator)


def of_processes(number: int, seed: int) -> Iterator[Told]:
    """Cases of commands."""
    with tempfile.TemporaryDirectory() as folder:
        yield from processes.cases(number, seed, pathlib.Path(folder))


def _case(reader: readers.Reader, generator: random.Random) -> tuple[str, str, str]:
    path, how = generator.choice(reader.files), generator.choice(reader.how)
    content, times = path.read_bytes(), path.stat()
    try:
        path.write_bytes(mutations.mutated(content, how, generator))
        return (f"{path.name} {how}", *outcome.of(reader.read, lines=reader.lines))
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def main() -> int:
    """Try all cases; tell each defect."""
    parser = argparse.ArgumentParser(prog="python -m tests.bad_input", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=4000, help="configs and files, half each")
    parser.add_argument("--processes", type=int, default=40, help="more of them, in processes of their own")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--images", type=pathlib.Path, help="a folder of images to damage, beside plain ones")
    parser.add_argument("--only", default="", help="only kinds whose name contains this; 'config', 'process'")
    parser.add_argument("--page", type=pathlib.Path, help="write the page to this file")
    given = parser.parse_args()
    assert conftest.compile_cache()  # which has set the environment
    told: list[Told] = []
    parts = [of_configs(given.cases // 2, given.seed)] if given.only in ("", "config") else []
    if given.only in ("", "process"):
        parts.append(of_processes(given.processes, given.seed))
    if given.only not in ("config", "process"):
        parts.append(of_files(given.cases - given.cases // 2, given.seed, given.images, given.only))
    for part in parts:
        for case in part:
            told.append(case)
            if case[2] == outcome.DEFECT:
                print(f"{case[0]}: {case[1]}: {case[3]}", flush=True)
    names = [name for name in NAMES if name != "cases" or given.only != "process"]
    flags = [f"--{name}={getattr(given, name)}" for name in names if getattr(given, name) != ""]
    flags += ["--images=<folder>"] if given.images else []
    if given.only in ("", "process"):
        flags.append(f"--processes={given.processes}")
    command = " ".join(["python -m tests.bad_input", *flags])
    print(page(told, command))
    if given.page:
        given.page.write_text(page((), "", *kept(given.page.with_suffix(".jsonl"), counted(told, command))))
    return int(any(state == outcome.DEFECT for _, _, state, _ in told))


if __name__ == "__main__":
    raise SystemExit(main())
