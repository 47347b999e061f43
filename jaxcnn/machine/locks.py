"""Locks on files, which the kernel lets go of when their process ends, however it ends."""

import errno
import fcntl
import logging
import pathlib
from typing import IO

# What file systems without flock answer: Lustre without -o flock, NFS without lockd, some of FUSE, shared folders.
_ABSENT = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EPROTO, errno.EINVAL)


class NoLocksError(OSError):
    """The file system has no locks."""


_told: list[NoLocksError] = []


def tell(folder: pathlib.Path, error: NoLocksError, others: str) -> None:
    """Remark, once in a process, that nothing keeps others from using a folder meanwhile."""
    if not _told:
        _told.append(error)
        logging.getLogger("jaxcnn").warning(
            "%s cannot be locked (%s), so see to it that no other %s uses this folder meanwhile",
            folder, error.strerror, others,
        )  # fmt: skip


def take(file: IO, *, wait: bool, shared: bool = False) -> bool:
    """Lock an open file until it is closed; return whether the lock is ours, which it is for sure if we `wait`.

    Many may have a `shared` lock at once, but not while one has the other kind.

    Raises:
      NoLocksError: the file system has no locks.
      OSError: the file cannot be locked for another reason.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in _ABSENT:
            raise NoLocksError(error.errno, error.strerror) from error
        if wait or error.errno not in (errno.EAGAIN, errno.EACCES):
            raise
        return False
    return True
