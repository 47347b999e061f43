"""Files of weights. Nothing in a file is run; files that are damaged or may run code are refused."""

import hashlib
import json
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.machine import extras, json_text, npz_arrays, whole_files
from jaxcnn.text import shown
from jaxcnn.weights import compressed

MOST_BYTES = 4 * compressed.MOST_WEIGHTS  # of all arrays of an npz file, which may be compressed
DIGEST, NO_DIGEST = (
    "jaxcnn_sha256",
    "0" * 64,
)  # the fact that is the SHA-256 of the file, and what stands there meanwhile
MARK, OURS = "jaxcnn_checked", "jaxcnn"  # a fact of files that have a SHA-256; how the fact "made_by" begins
HALF = ("float16", "bfloat16")
_CONVERT = (
    "convert it once in PyTorch: weights = torch.load(path, weights_only=True); safetensors.torch.save_file("
    "{name: value.contiguous() for name, value in weights.items()}, 'weights.safetensors')"
)
_KINDS = {  # other files with weights, by their first bytes
    b"\x89HDF": "an HDF5 file of Keras; save its arrays once with numpy.savez under their names ('fc1/kernel')",
    b"\x80\x02": f"a pickle, which could run code; {_CONVERT}",
    b"\x80\x04": f"a pickle, which could run code; {_CONVERT}",
    b"\x80\x05": f"a pickle, which could run code; {_CONVERT}",
}


def read(
    path: pathlib.Path, half: bool = False, wanted: compressed.Shapes | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file as float32, by name, and its facts (its metadata; empty for npz).

    Args:
      path: the file.
      half: accept float16 and bfloat16.
      wanted: the shapes that the arrays of compressed weights must have, by name; other files are not compared.

    Raises:
      UserError: the file cannot be read, is damaged, is a pickle, or has values that are not finite or not floats.
    """
    reads = check(path)
    arrays, facts = compressed.read(path, wanted) if reads is compressed.read else reads(path)
    return {name: _checked(path, name, value, half) for name, value in arrays.items()}, facts


def check(path: pathlib.Path) -> Callable[[pathlib.Path], tuple[dict[str, np.ndarray], dict[str, str]]]:
    """The function that reads this file, chosen by its first bytes.

    Raises:
      UserError: the file cannot be read, or its format is not supported.
      MissingExtra: the package that reads it is not installed.
    """
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise UserError(f"{shown(str(path))} is not a regular file")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be read: {error.strerror}") from error
    for begin, what in _KINDS.items():
        if head.startswith(begin):
            raise UserError(f"{shown(str(path))} is {what}")
    if head == compressed.MAGIC or path.suffix == compressed.SUFFIX:
        return compressed.read
    if head.startswith(b"PK"):
        return _npz
    extras.need("safetensors", f"reading {shown(path.name)}")
    return _safetensors


def _npz(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with zipfile.ZipFile(path) as file:
            if any(name.endswith("data.pkl") for name in file.namelist()):
                raise UserError(f"{shown(str(path))} is a pickle of PyTorch, which could run code; {_CONVERT}")
        return npz_arrays.read(path, MOST_BYTES), {}
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{shown(str(path))} holds Python objects, which could run code; save arrays alone"
            ) from None
        raise UserError(f"{shown(str(path))} is not a whole npz file ({_words(error)}); get it again") from error


def _safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    import safetensors

    if path.suffix != ".safetensors":
        raise UserError(f"{shown(str(path))} is neither an npz nor a safetensors file")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {}
            for name in file.keys():  # noqa: SIM118 (no mapping)
                kind = file.get_slice(name).get_dtype()
                arrays[name] = np.zeros(0, np.float16) if kind == "BF16" else file.get_tensor(name)
            facts = dict(file.metadata() or {})
            _check_digest(path, facts)
        if any(value.dtype == np.float16 and not value.size for value in arrays.values()):
            arrays |= _bfloat16(path)
        return arrays, facts
    except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{shown(str(path))} is not a whole safetensors file ({_words(error)}); get it again"
        ) from error


def _bfloat16(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The bfloat16 arrays of a file, a type that NumPy alone does not know."""
    import ml_dtypes

    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json_text.parse(content[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "BF16":
            start, end = (8 + length + each for each in entry["data_offsets"])
            found[name] = np.frombuffer(content[start:end], ml_dtypes.bfloat16).reshape(entry["shape"])
    return found


def _checked(path: pathlib.Path, name: str, value: np.ndarray, half: bool) -> np.ndarray:
    where = f"{shown(str(path))}: {shown(name)}"
    if value.dtype.name in HALF and not half:
        raise UserError(
            f"{where} has type {value.dtype.name}, which keeps two or three digits; give weights of float32, or accept "
            "them with config.init.half=True"
        )
    if value.dtype.kind in "iu" and not value.ndim:  # a count, such as PyTorch's num_batches_tracked
        return value
    if value.dtype.name not in (*HALF, "float32", "float64"):
        raise UserError(f"{where} has type {value.dtype.name}, not float32")
    if not np.all(np.isfinite(value.astype(np.float32))):
        raise UserError(f"{where} has values that are not finite (NaN or infinity); the weights are of no use")
    return value.astype(np.float32)


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> None:
    """Write a safetensors file; equal arrays and facts give equal bytes.

    Raises:
      UserError: it cannot be written.
    """
    extras.need("safetensors", "writing safetensors")
    from safetensors.numpy import save

    sealed = dict(facts) | {DIGEST: NO_DIGEST, MARK: DIGEST}
    content = _sorted(save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, sealed))
    content = content.replace(NO_DIGEST.encode(), hashlib.sha256(content).hexdigest().encode(), 1)
    try:
        whole_files.write(path, content)
    except OSError as error:
        raise UserError(f"{shown(str(path))} cannot be written: {error.strerror}") from error


def _check_digest(path: pathlib.Path, facts: dict[str, str]) -> None:
    """Compare a file with the SHA-256 in its facts, and remove it from them; only files of jaxcnn have one.

    Several facts say that a file is one of jaxcnn, so a change of one of them cannot pass it off as that of another
    library.

    Raises:
      UserError: it was changed, or is one of jaxcnn without its SHA-256.
    """
    told, is_marked = facts.pop(DIGEST, None), facts.pop(MARK, None) is not None
    if told is None:
        if is_marked or facts.get("made_by", "").startswith(OURS):
            raise UserError(f"{shown(str(path))} is damaged or was changed (it has no checksum); export the run again")
        return
    found = hashlib.sha256()
    with path.open("rb") as file:
        length = file.read(8)
        header = file.read(int.from_bytes(length, "little"))
        found.update(length + header.replace(told.encode(), NO_DIGEST.encode(), 1))
        while part := file.read(2**20):
            found.update(part)
    if found.hexdigest() != told:
        raise UserError(f"{shown(str(path))} is damaged or was changed (its checksum is another); export the run again")


def facts(path: pathlib.Path) -> dict[str, str]:
    """The facts of a file of weights of jaxcnn, without its arrays; empty for an npz. Raises UserError as `read`."""
    reads = check(path)
    if reads is compressed.read:
        return compressed.facts(path)
    if reads is _npz:
        return {}
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            told = dict(file.metadata() or {})
            return {name: value for name, value in told.items() if name not in (DIGEST, MARK)}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{shown(str(path))} is not a whole safetensors file ({_words(error)}); get it again"
        ) from error


def _sorted(content: bytes) -> bytes:
    """A safetensors file whose header has its facts in the order of their names; the package writes them in any."""
    length = int.from_bytes(content[:8], "little")
    header = json_text.parse(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
