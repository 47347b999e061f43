"""Seals of a checkpoint: its record holds the shape, dtype and CRC-32 of every array, and the CRC-32 of the record."""

import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import flax.serialization
import jax
import numpy as np

from jaxcnn.learn.state import State
from jaxcnn.machine import json_text
from jaxcnn.machine import mesh as meshes
from jaxcnn.train.checksum import crc32_of

RECORD = "record"  # the item of a checkpoint, which orbax writes as one JSON file called metadata


def tree_of(state: State) -> dict[str, Any]:
    """The state as nested dictionaries, from whose keys orbax names the leaves."""
    tree = flax.serialization.to_state_dict(state)
    if not tree["hyper"]["task"]:  # as in checkpoints of earlier versions
        tree["hyper"] = {name: value for name, value in tree["hyper"].items() if name != "task"}
    return {name: value for name, value in tree.items() if value is not None and jax.tree.leaves(value)}


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """The arrays of a tree with their names, such as "params/conv/kernel"."""
    return [(_name(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of a tree by their names."""
    return {name: tuple(leaf.shape) for name, leaf in leaves(tree)}


def on_host(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by their names, in memory."""
    return {name: np.asarray(jax.device_get(leaf)) for name, leaf in leaves(tree)}


def replaced(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The tree with new values for the arrays with these names, on the devices where the old ones lie."""

    def one(path: Any, leaf: Any) -> Any:
        name = _name(path)
        return meshes.put(arrays[name], leaf.sharding) if name in arrays else leaf

    return jax.tree_util.tree_map_with_path(one, tree)


def filled(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """A tree of arrays by their names, of the form of another tree."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: arrays[_name(path)], tree)


def _name(path: Any) -> str:
    return "/".join(str(part.key) for part in path)


def sealed(record: dict[str, Any], tree: Any) -> dict[str, Any]:
    """A record with the seals of the arrays of its checkpoint and its own CRC-32; JSON."""
    record = record | {"arrays": _seals(tree)}
    return record | {"crc32": crc32_of(record)}


def check_arrays(tree: Any, record: dict[str, Any]) -> None:
    """Check restored arrays against the record of their checkpoint. Raises ValueError if they differ."""
    for name, seal in _seals(tree).items():
        if seal != record["arrays"][name]:
            raise ValueError(f"array {name} differs from what was saved")


def check_record(record: Any) -> None:
    """Check a record against its own CRC-32. Raises ValueError if they differ."""
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("arrays"), dict)
        or record["crc32"] != crc32_of(record)
    ):
        raise ValueError("its record differs from what was saved")


def newest_record(folder: pathlib.Path) -> tuple[int, dict[str, Any]] | None:
    """Step and record of the newest checkpoint in a folder whose record is whole; None if there is none."""
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    found = ((step, read_record(folder / str(step))) for step in sorted(steps, reverse=True))
    return next(((step, record) for step, record in found if record is not None), None)


def check_files(folder: pathlib.Path) -> None:
    """Raise ValueError if a folder holds anything but files and folders: reading a pipe would never end."""
    for path in folder.rglob("*"):
        if not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.relative_to(folder)} is not a regular file")


def read_record(checkpoint: pathlib.Path) -> dict[str, Any] | None:
    """The record of the finished checkpoint in a folder; None if it is not whole, or no longer exists."""
    try:
        check_files(checkpoint / RECORD)
        record = json_text.parse((checkpoint / RECORD / "metadata").read_text(encoding="utf-8"))
        check_record(record)
    except (OSError, ValueError, KeyError):
        return None
    return record


def _seals(tree: Any) -> dict[str, list[Any]]:
    """Shape, dtype and CRC-32 of every array, by name."""
    seals = {}
    for name, leaf in leaves(tree):
        array = np.ascontiguousarray(_whole(leaf))
        seals[name] = [list(leaf.shape), str(leaf.dtype), zlib.crc32(array.view(np.uint8).reshape(-1).data)]
    return seals


def _whole(leaf: Any) -> np.ndarray:
    """An array on the host, gathered from all processes if none has all of it."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        from jax.experimental.multihost_utils import process_allgather

        return process_allgather(leaf, tiled=True)
    return np.asarray(leaf)
