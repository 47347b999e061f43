"""Checkpoints: orbax writes and keeps them; here each is sealed with checksums, and only sound ones are restored."""

import contextlib
import dataclasses
import logging
import pathlib
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Sharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, EveryNSteps, LatestN

from jaxcnn.config import Checkpoint, UserError
from jaxcnn.learn.state import State

BEST_METRIC = "val_top1_accuracy"


@dataclasses.dataclass(frozen=True)
class Restored:
    """A sound checkpoint: the state, and what the run knew beside it."""

    state: State
    record: dict[str, Any]


class Checkpoints:
    """The checkpoints of one workdir.

    A checkpoint holds two items: `state`, all arrays, and `record`, JSON: the config, the progress of the run, and a
    CRC-32 for each array. orbax makes both visible in one atomic rename, so what is there is whole; damage that comes
    later (a lost file, flipped bytes, which orbax alone restores silently) is found by the checksums.
    """

    def __init__(self, folder: pathlib.Path, policy: Checkpoint, *, read_only: bool = False) -> None:
        # orbax tells every step of a save, and of a failing one at length; `_failures` says it in one line.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        sys.excepthook = _without_closed_loops
        self.folder = folder
        kept: list[Any] = [LatestN(policy.keep_last)]
        if policy.keep_best:
            kept.append(
                BestN(
                    get_metric_fn=lambda m: m[BEST_METRIC], n=policy.keep_best, keep_checkpoints_without_metrics=False
                )
            )
        if policy.keep_every_steps:
            kept.append(EveryNSteps(policy.keep_every_steps))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(kept),
            save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(1),
            read_only=read_only,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=not read_only,
        )
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=options,
            item_handlers={"state": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()},
        )

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: State, record: dict[str, Any], val_top1_accuracy: float | None) -> None:
        """Start saving in the background; the arrays are copied before it returns, so the state may be donated.

        A checkpoint of the same step is replaced.

        Raises:
          UserError: an earlier save failed, such as on a full disk.
        """
        step, tree = int(state.step), _tree(state)
        with self._failures(step):
            if step in self._manager.all_steps():
                self._manager.delete(step)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree),
                    record=ocp.args.JsonSave(record | {"arrays": _seals(tree)}),
                ),
                metrics=None if val_top1_accuracy is None else {BEST_METRIC: val_top1_accuracy},
            )

    def wait(self) -> None:
        """Return when the last save is on disk.

        Raises:
          UserError: it failed.
        """
        with self._failures(None):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Let go of orbax's threads."""
        self._manager.close()

    def newest_sound(self, target: State, sharding: Sharding, *, set_aside: bool) -> tuple[Restored | None, list[str]]:
        """The newest checkpoint that is whole, and one line for each newer one that is not.

        Args:
          target: shapes and dtypes, as of `jax.eval_shape`.
          sharding: of the restored arrays.
          set_aside: rename damaged ones to `damaged-<step>`, so that their steps can be saved again.

        Raises:
          UserError: a checkpoint is of another model, or there are some and none is sound.
        """
        remarks: list[str] = []
        for step in reversed(self.steps()):
            try:
                return self.restore(step, target, sharding), remarks
            except DamagedError as error:
                remarks.append(f"{error}; falling back to the one before")
                if set_aside:
                    (self.folder / str(step)).rename(_free_name(self.folder / f"damaged-{step}"))
        if remarks:
            raise UserError(
                f"{self.folder}: no sound checkpoint is left ({'; '.join(remarks)}); start again in another workdir"
            )
        return None, remarks

    def restore(self, step: int, target: State, sharding: Sharding) -> Restored:
        """Restore one checkpoint and verify it.

        Raises:
          DamagedError: it is not whole.
          UserError: it is of another model.
        """
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), _tree(target))
        try:
            record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
            seals = record["arrays"]
        except Exception as error:
            raise DamagedError(step, error) from error
        self._same_model(step, seals, wanted)
        try:
            tree = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted)))["state"]
        except Exception as error:  # orbax raises a bare Exception for a truncated file
            raise DamagedError(step, error) from error
        for name, seal in _seals(tree).items():
            if seal != seals[name]:
                raise DamagedError(step, ValueError(f"array {name} is not what was saved"))
        blank = jax.tree.map(lambda x: x, target)
        return Restored(
            flax.serialization.from_state_dict(blank, tree | ({} if "ema" in tree else {"ema": None})), record
        )

    def _same_model(self, step: int, seals: dict[str, Any], wanted: Any) -> None:
        here = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in _leaves(wanted)}
        there = {name: seal[:2] for name, seal in seals.items()}
        if here != there:
            name = min(n for n in here.keys() | there.keys() if here.get(n) != there.get(n))
            raise UserError(
                f"{self.folder}/{step} is a checkpoint of another model: {name} is {there.get(name, 'absent')} there, "
                f"{here.get(name, 'absent')} in this config"
            )

    @contextlib.contextmanager
    def _failures(self, step: int | None) -> Iterator[None]:
        """Turn a failure to write into the user's error that it is."""
        try:
            yield
        except Exception as error:
            what = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"{self.folder}: {what} could not be saved: {reason[0][:300]}; free some space or mend the folder, "
                "then run the same command: it resumes from the newest finished checkpoint"
            ) from error


class DamagedError(Exception):
    """A checkpoint is not whole."""

    def __init__(self, step: int, cause: Exception) -> None:
        reason = str(cause).strip().splitlines() or [type(cause).__name__]
        super().__init__(f"checkpoint {step} is damaged ({reason[0][:200]})")


def _tree(state: State) -> dict[str, Any]:
    """The state as nested dictionaries, which orbax names leaves by."""
    tree = flax.serialization.to_state_dict(state)
    return {name: value for name, value in tree.items() if value is not None and jax.tree.leaves(value)}


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [("/".join(str(part.key) for part in path), leaf) for path, leaf in paths]


def _seals(tree: Any) -> dict[str, list[Any]]:
    """Shape, dtype and CRC-32 of every array, by name."""
    seals = {}
    for name, leaf in _leaves(tree):
        array = np.ascontiguousarray(jax.device_get(leaf))
        seals[name] = [list(leaf.shape), str(leaf.dtype), zlib.crc32(array.view(np.uint8).reshape(-1).data)]
    return seals


def _without_closed_loops(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Leave out what tensorstore prints of an event loop that orbax closed at the first error of a save."""
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        sys.__excepthook__(kind, error, trace)


def _free_name(path: pathlib.Path) -> pathlib.Path:
    return next(p for n in range(10**6) if not (p := path.with_name(f"{path.name}{f'-{n}' if n else ''}")).exists())
