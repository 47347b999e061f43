"""Saved checkpoints: waiting until one is on disk, and reading what it has of an optimiser."""

import contextlib
import pathlib
import threading
import types
from concurrent.futures import Future
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxcnn.machine import malloc

LOOK = 1.0  # seconds between two looks at the folder
ROOM = 64 << 20  # bytes of address space for the stacks of the threads that a save starts, 8 MiB each
_BYTES = 4096  # a full disk takes no more


def wait(manager: Any, folder: pathlib.Path, alone: bool) -> None:
    """Return when the last save of an `orbax.checkpoint.CheckpointManager` is on disk.

    Where several processes save together and one of them fails, orbax waits ten minutes in that process for the
    others, who wait for it. So each looks at the folder meanwhile, as a folder is what fails.

    Args:
      manager: saves into `folder`.
      folder: folder of the checkpoints.
      alone: whether this process saves alone.

    Raises:
      OSError: the folder cannot be written.
      Exception: what orbax raises for a save that failed.
    """
    if alone:
        manager.wait_until_finished()
        return
    done: Future[None] = Future()
    threading.Thread(target=_wait, args=(manager, done), name="saved", daemon=True).start()
    while not done.done():
        try:
            done.exception(LOOK)
        except TimeoutError:
            _look(folder)
    done.result()


def before_save() -> None:
    """Refuse to save where the limit on the address space (`ulimit -v`) leaves no room for the threads that save.

    Python waits for ever for a thread that ends before it has begun, as for want of memory.

    Raises:
      MemoryError: less than `ROOM` is left.
    """
    left = malloc.address_space_left()
    if left is not None and left < ROOM:
        raise MemoryError(
            f"the limit on the address space (ulimit -v) leaves {max(left, 0) >> 20} MiB, and saving takes "
            f"{ROOM >> 20} MiB: raise it"
        )
    _keep_no_names()


class _Own(types.ModuleType):
    """What orbax takes for the module `tensorstore`."""


class _Local:
    """A local folder as `tensorstore.KvStore.Spec`, of which orbax wants `to_json`."""

    def __init__(self, place: dict[str, str]) -> None:
        self.place = place

    def to_json(self) -> dict[str, str]:
        """The place in full, which is as it was given."""
        return dict(self.place)


class _Stores:
    """`tensorstore.KvStore`, but for the specs of local folders."""

    def __init__(self, there: Any) -> None:
        self._there = there

    def __getattr__(self, name: str) -> Any:
        return getattr(self._there, name)

    def Spec(self, place: Any) -> Any:  # the name that tensorstore has
        """The spec of a place, of our own for a local folder."""
        local = isinstance(place, dict) and place.keys() == {"driver", "path"} and place["driver"] == "file"
        return _Local(place) if local else self._there.Spec(place)

    def open(self, place: Any, *arguments: Any, **options: Any) -> Any:
        """What tensorstore opens at a place."""
        return self._there.open(place.place if isinstance(place, _Local) else place, *arguments, **options)


def _keep_no_names() -> None:
    """Let orbax ask for the places of arrays without a call that leaks.

    For each array of a checkpoint, orbax calls `tensorstore.KvStore.Spec(…).to_json()`, and tensorstore (0.1.86) never
    frees the strings of its answer: 17 KiB in each save of a network with 34 arrays. An orbax without this call is left
    as it is.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from orbax.checkpoint._src.serialization import tensorstore_utils

        whole = tensorstore_utils.ts
        if isinstance(whole, _Own):
            return
        own = _Own(whole.__name__)
        vars(own).update(vars(whole) | {"KvStore": _Stores(whole.KvStore)})
        tensorstore_utils.ts = own


def _wait(manager: Any, done: Future[None]) -> None:
    try:
        manager.wait_until_finished()
    except BaseException as error:  # raised in the thread that waits
        done.set_exception(error)
    else:
        done.set_result(None)


def _look(folder: pathlib.Path) -> None:
    """Write a small file and remove it again."""
    file = folder / f".look-{threading.get_native_id()}"
    try:
        file.write_bytes(bytes(_BYTES))
    finally:
        file.unlink(missing_ok=True)


def optimizer(folder: pathlib.Path) -> Any:
    """The shapes of the optimiser's state in the newest checkpoint of a folder that can be read, as nested mappings.

    With them, a checkpoint is restored without the code of its optimiser. Empty without a checkpoint.
    """
    for step in sorted((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), reverse=True):
        try:
            tree = ocp.StandardCheckpointHandler().metadata((folder / str(step) / "state").absolute()).tree
        except Exception:  # a damaged one, which is reported when it is restored
            continue
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree.get("opt_state", {}))
    return {}
