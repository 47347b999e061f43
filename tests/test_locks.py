"""Locks on files, and what goes on where the file system has none."""

import errno
import fcntl
import logging

import pytest

from jaxcnn.config import UserError
from jaxcnn.data import cache
from jaxcnn.machine import locks
from jaxcnn.study import folder as files
from jaxcnn.train import workdir

ANSWERS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]  # Lustre without -o flock, NFS without lockd, others


@pytest.fixture
def no_locks(request, monkeypatch):
    """The file system answers every flock with an error; nothing else is as on it."""

    def refuse(*_):
        raise OSError(request.param, "refused")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "_told", [])
    monkeypatch.setattr(files.Lock, "alone", False)
    monkeypatch.setattr(files.Lock, "_of_this_process", set())


def test_a_lock_is_one_holders_until_its_file_is_closed(tmp_path):
    with (tmp_path / "lock").open("a") as other:
        with (tmp_path / "lock").open("a") as first:
            assert locks.take(first, wait=False)
            assert not locks.take(other, wait=False)
        assert locks.take(other, wait=True)


@pytest.mark.parametrize("no_locks", ANSWERS, indirect=True)
def test_a_run_goes_on_without_the_lock_after_one_remark(no_locks, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "jaxcnn"), workdir.claim(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    with caplog.at_level(logging.WARNING, "jaxcnn"), workdir.claim(tmp_path / "next trial"):
        pass
    (remark,) = caplog.messages
    assert (
        remark
        == f"{tmp_path}/run cannot be locked (refused); make sure that no other run uses this folder at the same time"
    )


@pytest.mark.parametrize("no_locks", [errno.EIO], indirect=True)
def test_a_lock_that_fails_for_another_reason_is_one_line(no_locks, tmp_path):
    with pytest.raises(UserError, match=r"^--workdir=.* cannot be locked: refused; choose another folder$"):
        workdir.claim(tmp_path).__enter__()
    with pytest.raises(UserError, match="cannot be locked"):
        files.Lock(tmp_path / "lock").take(wait=False)


@pytest.mark.parametrize("no_locks", ANSWERS, indirect=True)
def test_a_cache_is_built_without_the_lock(no_locks, tmp_path):
    with cache.lock(tmp_path / "cache.lock"):
        pass


@pytest.mark.parametrize("no_locks", ANSWERS[:1], indirect=True)
def test_a_sweep_goes_on_without_locks_where_one_process_does_it_all(no_locks, tmp_path, caplog):
    with pytest.raises(UserError, match=r"cannot be locked \(refused\); .* --engine=inline$"):
        files.Lock(tmp_path / "lock").take(wait=True)
    with caplog.at_level(logging.WARNING, "jaxcnn"):
        files.work_alone(tmp_path)
    assert len(caplog.messages) == 1
    held, other = files.Lock(tmp_path / "lock"), files.Lock(tmp_path / "lock")
    assert held.take(wait=False)
    assert not other.take(wait=False), "a trial must not be taken twice by one process"
    held.release()
    assert other.take(wait=False)


def test_where_there_are_locks_nothing_is_said_of_them(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(files.Lock, "alone", False)
    with caplog.at_level(logging.WARNING, "jaxcnn"), workdir.claim(tmp_path):
        files.work_alone(tmp_path)
    assert caplog.messages == []
