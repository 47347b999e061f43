"""Files of a run that are damaged, emptied or lost between two of its starts."""

import pathlib
import random
import shutil
import signal
from collections.abc import Callable, Iterator

from tests.campaign.draws import Draw
from tests.campaign.struck import REFUSED, Struck, start


def damaged(draw: Draw, workdir: pathlib.Path, generator: random.Random) -> Struck:
    """The run is stopped, and one of its files is truncated, flipped, emptied, cut in a line, or lost; or a folder is.

    What was there comes back after the start that meets it, unless that start went to the end.
    """
    phase = draw.phase(generator, ("train", "train", "train", "validate", "final evaluation", "report"))
    first = start(draw, workdir)
    first.wait_for(phase, generator)
    first.send(generator.choice((signal.SIGKILL, signal.SIGTERM)))
    first.end()
    copy = workdir.with_name(f"{workdir.name}-copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(workdir, copy)
    there = [*_files(workdir), *_folders(workdir)]
    file = generator.choice(there) if there else workdir
    if file.is_dir():
        how = "missing"
        shutil.rmtree(file)
    else:
        how = generator.choice(list(WAYS)) if file.name != "metrics.jsonl" else "cut"
        WAYS[how](file, file.read_bytes(), generator)
    name = str(file.relative_to(workdir))

    def undo() -> None:
        """As it was before the damage."""
        for path in list(workdir.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(copy, workdir, dirs_exist_ok=True)

    watched = start(draw, workdir)
    return Struck(watched, REFUSED, phase, True, undo=undo, told={"file": _kind(name), "path": name, "how": how})


def _files(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files of a run, each kind as likely as another: those of checkpoints are many."""
    beside = [path for path in sorted(workdir.iterdir()) if path.suffix in (".json", ".jsonl")]
    finished = [path for path in workdir.glob("checkpoints/*") if path.name.isdecimal()]
    inside = [path for each in sorted(finished) for path in sorted(each.rglob("*")) if path.is_file()]
    yield from beside
    if inside:
        step = max(int(path.relative_to(workdir).parts[1]) for path in inside)
        newest = [path for path in inside if path.relative_to(workdir).parts[1] == str(step)]
        yield from newest[:: max(1, len(newest) // 6)]
        yield from inside[:: max(1, len(inside) // 3)]


def _folders(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
    """Folders that may be lost: a checkpoint, a part of one, all of them."""
    finished = sorted(
        (path for path in workdir.glob("checkpoints/*") if path.name.isdecimal()), key=lambda p: int(p.name)
    )
    if finished:
        yield finished[-1]
        yield workdir / "checkpoints"
        yield from [path for path in sorted(finished[-1].iterdir()) if path.is_dir()][:1]


def _kind(name: str) -> str:
    return "checkpoint" if name.startswith("checkpoints") else name


def _flip(file: pathlib.Path, content: bytes, generator: random.Random) -> None:
    flipped = bytearray(content or b"\0")
    flipped[generator.randrange(len(flipped))] ^= 1 << generator.randrange(8)
    file.write_bytes(flipped)


WAYS: dict[str, Callable[[pathlib.Path, bytes, random.Random], object]] = {
    "truncated": lambda file, content, generator: file.write_bytes(content[: generator.randint(0, len(content))]),
    "flipped": _flip,
    "emptied": lambda file, _content, _generator: file.write_bytes(b""),
    "missing": lambda file, _content, _generator: file.unlink(),
    "cut": lambda file, content, generator: file.write_bytes(content[: -generator.randint(1, min(60, len(content)))]),
}
