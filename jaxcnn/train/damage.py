"""Distinguishes damage of checkpoints from failures of the machine."""

import errno
import os

TRANSIENT = (errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.EMFILE)  # say nothing about the checkpoint
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def reason_of(error: Exception) -> str:
    """Why something could not be written: the system's own words if known, without TensorStore's source locations."""
    of_system = (os.strerror(number) for number in FULL if os.strerror(number) in str(error))
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return next(of_system, lines[0][:300])


class DamagedError(Exception):
    """Raised for a checkpoint that is not whole."""

    def __init__(self, step: int, cause: Exception) -> None:
        reason = str(cause).strip().splitlines() or [type(cause).__name__]
        super().__init__(f"checkpoint {step} is damaged ({reason[0][:200]})")


def damage_of(step: int, error: Exception) -> Exception:
    """A `DamagedError` of the checkpoint, or the error itself if the machine caused it."""
    of_machine = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
    if of_machine or (isinstance(error, OSError) and error.errno in TRANSIENT):
        return error
    return DamagedError(step, error)
