"""The cache folder keeps to its limit: what was not used for longest goes, what is in use stays."""

import fcntl
import os
import pathlib
import threading
import time

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from jaxcnn import cache as cache_command
from jaxcnn.config import UserError
from jaxcnn.data import cache, cache_limit

MIB = 2**20
DAY = 86400.0


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("JAXCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(path: pathlib.Path, mebibytes: float = 1, days: float = 0) -> pathlib.Path:
    """A file that was used last so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(int(mebibytes * MIB)))
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def pixels(folder: pathlib.Path, name: str, days: float = 0) -> np.ndarray:
    """Decoded images of a MiB, kept; used last so many days ago."""
    shape = (MIB, 1, 1, 1)
    images, trouble = cache.cached_images(folder / f"pixels-{name}.npy", shape, lambda: [np.zeros(shape, np.uint8)])
    assert images is not None, trouble
    os.utime(folder / f"pixels-{name}.npy", (time.time() - days * DAY,) * 2)
    return images


def names(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_decoded_images_not_used_for_longest_go_first_and_those_in_use_stay(folder, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE_GIB", "inf")
    in_use = pixels(folder, "in-use", days=9)
    for name, days in (("oldest", 5), ("old", 4), ("young", 1)):
        pixels(folder, name, days)
    put(folder / "records-a.npz", days=30)
    put(folder / "compiled" / "a-cache", days=30)
    other = put(folder / "notes.txt", 5, days=90)
    monkeypatch.setenv("JAXCNN_CACHE_GIB", str(4.5 / 1024))  # of some 6 MiB
    cache_limit.keep(folder)
    assert names(folder) == {"pixels-in-use.npy", "pixels-young.npy", "records-a.npz", "a-cache", other.name}
    monkeypatch.setenv("JAXCNN_CACHE_GIB", "0")
    cache_limit.keep(folder)
    assert names(folder) == {"pixels-in-use.npy", other.name}
    del in_use
    cache_limit.keep(folder)
    assert names(folder) == {other.name}


def test_use_is_noted_so_that_what_is_used_stays(folder, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE_GIB", "inf")
    for name in ("a", "b"):
        pixels(folder, name, days=5)
        arrays = cache.cached_arrays(folder / f"scan-{name}.npz", lambda: {"x": np.zeros(MIB)})
        assert arrays["x"].shape == (MIB,)
        os.utime(folder / f"scan-{name}.npz", (time.time() - 5 * DAY,) * 2)
    pixels_used, _ = cache.cached_images(folder / "pixels-a.npy", (MIB, 1, 1, 1), lambda: [])
    cache.cached_arrays(folder / "scan-a.npz", dict)
    del pixels_used
    used = {each.path.name for each in cache_limit.kept(folder) if time.time() - each.used < DAY}
    assert used == {"pixels-a.npy", "scan-a.npz"}


def test_a_set_that_is_decoded_makes_room_for_itself(folder, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE_GIB", str(1.5 / 1024))
    first = pixels(folder, "first")
    second = pixels(folder, "second")
    assert names(folder) == {"pixels-first.npy", "pixels-second.npy"}, "both are in use"
    del first, second
    third = pixels(folder, "third")
    assert names(folder) == {"pixels-third.npy"} and third.shape == (MIB, 1, 1, 1)


def test_no_lock_is_left_behind_and_none_lets_two_in(folder):
    inside, most = [], []

    def work(_: int) -> None:
        for _ in range(20):
            with cache.lock(folder / "a.lock"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80 and max(most) == 1
    assert names(folder) == set()


def test_what_killed_processes_left_goes_after_an_hour_unless_somebody_is_at_it(folder):
    left = [
        put(folder / name, 0, days=0.1) for name in ("pixels-a.lock", "pixels-a.npyx1.partial", "compiled/b.partial")
    ]
    put(folder / "pixels-b.npyx2.partial", 0)
    at_it = put(folder / "pixels-c.npyx3.partial", 0, days=0.1)
    with at_it.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        cache_limit.keep(folder)
    assert names(folder) == {"pixels-b.npyx2.partial", at_it.name} and not any(path.exists() for path in left)


def test_a_file_is_locked_while_it_is_written(folder):
    def write(file) -> None:
        (aside,) = folder.iterdir()
        os.utime(aside, (0, 0))
        cache_limit.keep(folder)
        assert aside.exists()
        file.write(b"x")

    cache.write_whole(folder / "records-a.npz", write)
    assert names(folder) == {"records-a.npz"}


@pytest.mark.parametrize("text", ["many", "-1", "nan"])
def test_a_limit_that_is_no_number_is_refused_in_one_line(folder, monkeypatch, text):
    monkeypatch.setenv("JAXCNN_CACHE_GIB", text)
    with pytest.raises(UserError, match=f"JAXCNN_CACHE_GIB='{text}' must be a number in GiB"):
        cache_limit.keep(folder)


def shown(capsys, **chosen) -> str:
    """What the command prints with these flags."""
    flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(**chosen):
        assert cache_command.main() == 0
    return capsys.readouterr().out


def test_the_command_shows_what_is_there_and_removes_what_it_is_told_to(folder, capsys):
    for n in range(3):
        put(folder / f"pixels-{n}.npy", 2, days=10 * n)
        put(folder / "compiled" / "executables" / str(n), 1, days=10 * n)
    output = shown(capsys)
    assert "decoded images: 3 files, 0.01 GiB, used 0.0 to 20.0 days ago" in output
    assert "programs: 3 files" in output and f"{folder}, at most 20 GiB (JAXCNN_CACHE_GIB)" in output
    assert "removed 2 files" in shown(capsys, older_than="15d")
    assert names(folder) == {"pixels-0.npy", "pixels-1.npy", "0", "1"}
    assert "removed 1 file, " in shown(capsys, limit_gib=4.5 / 1024)
    assert names(folder) == {"pixels-0.npy", "0", "1"}
    assert "removed 3 files" in shown(capsys, clean=True) and names(folder) == set()
    assert "at most" in shown(capsys, clean=True)
    with pytest.raises(UserError, match="--older_than=a month: write a number of days or hours"):
        shown(capsys, older_than="a month")
