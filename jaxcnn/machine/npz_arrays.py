"""The arrays of an .npz file; every header is compared with the file before memory is allocated for its array."""

import math
import pathlib
import zipfile

import numpy as np

from jaxcnn.machine import malloc

COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_DEFLATE_RATIO = 1032  # maximum ratio of decompressed to compressed bytes


def read(path: pathlib.Path, most: int) -> dict[str, np.ndarray]:
    """The arrays of a file, by name. Nothing in it is run.

    Args:
      path: the file.
      most: most bytes that its arrays may take together.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is no npz file, damaged, or holds Python objects, or its arrays exceed `most`, the
        free memory or the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            total = sum(_promised(archive, name, info) for name, info in members.items())
            if total > most:
                raise ValueError(f"its arrays take {total / 2**30:.1f} GiB, and the limit is {most / 2**30:.1f} GiB")
            if total > (there := malloc.obtainable() or most):  # lazily given memory would end in the kernel killing us
                raise ValueError(f"its arrays take {total / 2**30:.1f} GiB, and this machine has {there / 2**30:.1f}")
            return {name: _array(archive, info) for name, info in members.items()}
    except (OSError, ValueError):
        raise
    except MemoryError:
        raise ValueError("its arrays are larger than the free memory of this machine") from None
    except Exception as error:  # damaged files make NumPy, zipfile and decompressors raise errors of any kind
        raise ValueError(str(error) or type(error).__name__) from error


def bytes_there(member: zipfile.ZipInfo, header: int) -> int:
    """The most bytes that a member can have after its header of `header` bytes, whatever its own entry says."""
    there = member.file_size - header
    if member.compress_type == zipfile.ZIP_STORED:
        return min(there, member.compress_size)
    if member.compress_type == zipfile.ZIP_DEFLATED:
        return min(there, _DEFLATE_RATIO * member.compress_size)
    return there


def _promised(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> int:
    """The bytes of an array by its header.

    Raises:
      ValueError: the header states more than the file has, or is of an unknown version.
    """
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{name} has another version")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        there = bytes_there(member, file.tell())
    if dtype.hasobject:  # a pickle, whose size says nothing; refused when it is read
        return 0
    promised = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or promised > max(there, 0):
        raise ValueError(
            f"the header of {name} states {promised} bytes, but the file has only {max(there, 0)} for them"
        )
    return promised


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
