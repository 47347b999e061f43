"""File locks, which the kernel releases when their process ends, however it ends."""

import errno
import fcntl
import logging
import pathlib
from typing import IO

# Errors of file systems without flock: Lustre without -o flock, NFS without lockd, some of FUSE, shared folders.
_ABSENT = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EPROTO, errno.EINVAL)


class NoLocksError(OSError):
    """Raised when the file system does not support locks."""


_told: list[NoLocksError] = []


def tell(folder: pathlib.Path, error: NoLocksError, others: str) -> None:
    """Log once per process that a folder is not locked, so others could use it at the same time."""
    if not _told:
        _told.append(error)
        logging.getLogger("jaxcnn").warning(
            "%s cannot be locked (%s); make sure that no other %s uses this folder at the same time",
            folder, error.strerror, others,
        )  # fmt: skip


def take(file: IO, *, wait: bool, shared: bool = False) -> bool:
    """Lock an open file until it is closed; return whether this succeeded, which is certain with `wait`.

    Several holders may have a `shared` lock at the same time, but not together with an exclusive one.

    Raises:
      NoLocksError: the file system does not support locks.
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
