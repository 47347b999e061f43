"""Checkpoints: orbax writes and keeps them; this module adds checksums and restores only sound checkpoints."""

import contextlib
import dataclasses
import math
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Sharding
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN, PreservationPolicy

from jaxcnn.config import Checkpoint, UserError
from jaxcnn.learn.state import State
from jaxcnn.machine.heartbeat import Cluster, of_a_collective
from jaxcnn.machine.mesh import put
from jaxcnn.train import saved, seals
from jaxcnn.train.damage import DamagedError, damage_of, reason_of
from jaxcnn.train.environment import packages
from jaxcnn.train.workdir import free_name

REPLACED = "replaced-"  # prefix of a checkpoint while a new one of the same step is written
REMOVED = "removed"  # folder of the checkpoints that are being deleted
_OF_THE_LIBRARY = (NotImplementedError, AttributeError, TypeError, ImportError)  # damaged files never cause these


@dataclasses.dataclass(frozen=True)
class Restored:
    """A sound checkpoint: the state, and the record saved with it."""

    state: State
    record: dict[str, Any]


class Checkpoints:
    """The checkpoints of one workdir.

    A checkpoint holds two items: `state`, all arrays, and `record`, JSON: the config, the progress of the run, and a
    CRC-32 for each array and for itself. orbax makes both visible in one atomic rename, so a visible checkpoint is
    complete. The checksums find later damage: a lost file, or flipped bytes, which orbax alone restores silently. A
    checkpoint that is no longer kept is renamed before it is deleted: a kill never leaves half of one.

    Each of several processes writes its part of the arrays. Each reads on its own, without orbax's barriers, where the
    others would wait for a process that found a damaged file; then they agree whether all found the checkpoint whole.
    """

    def __init__(
        self, folder: pathlib.Path, policy: Checkpoint, *, read_only: bool = False, cluster: Cluster | None = None
    ) -> None:
        self.folder = folder
        self._cluster = cluster or Cluster()
        self._keep_best = policy.keep_best
        self._scores: dict[int, float | None] = {}  # by step, once its record was read or saved
        self._replacing = self._failed = False
        if not read_only:
            self._finish_replacing()
            self._delete_removed()
            self._cluster.gather()
        kept: list[Any] = [LatestN(policy.keep_last)]
        if policy.keep_best:
            kept.append(_Best(self._is_worth_keeping))
        if policy.keep_every_steps:
            kept.append(_Multiples(policy.keep_every_steps))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(kept),
            save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(1),
            read_only=read_only,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=not read_only,
            # Threads of orbax wait ten minutes for folders made in the background, also where these cannot be made.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            todelete_subdir=None if read_only else REMOVED,
        )
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=options,
            item_handlers={"state": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()},
        )

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first, as process 0 sees them."""
        return self._cluster.of_first(lambda: sorted(self._manager.all_steps()))

    def save(self, state: State, record: dict[str, Any], score: float | None) -> None:
        """Start saving in the background; the arrays are copied before this returns, so the state may be donated.

        An older checkpoint of the same step is removed once the new one is complete.

        Raises:
          UserError: an earlier save failed, for example because the disk is full; or see `saved.before_save`.
        """
        step, tree = int(jax.device_get(state.step)), seals.tree_of(state)
        if self._cluster.alone:
            # Host arrays: for arrays on several devices, orbax compiles a program per shape and device to slice them.
            tree = jax.tree.map(np.array, jax.device_get(tree))
        record = seals.sealed(record | {"score": score}, tree)
        with self._failures(step):
            saved.wait(self._manager, self.folder, self._cluster.alone)
            self._delete_removed()
            saved.before_save()
            if self._replacing:  # orbax deletes no step that has two folders
                self._finish_replacing()
            if step in self.steps():
                self._rename(str(step), f"{REPLACED}{step}")
                self._replacing = True
            self._scores[step] = score
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree),
                    record=ocp.args.JsonSave(record),
                ),
            )

    def best(self) -> int | None:
        """The kept step with the highest score on validation, the first of equals; None if none was evaluated."""
        return next(iter(_ranked(self.steps(), self._score)), None)

    def _score(self, step: int) -> float | None:
        """The score on validation at a kept step; None if it was not evaluated there."""
        if step not in self._scores:  # saved by an earlier start
            record = seals.read_record(self.folder / str(step))
            if record is None:
                return None
            progress = record.get("progress", {})
            # Earlier versions recorded it as an accuracy, and the first ones only in the progress.
            there = progress.get("accuracy") if progress.get("evaluated") == step else None
            self._scores[step] = record.get("score", record.get("val_accuracy", there))
        return self._scores[step]

    def _is_worth_keeping(self, steps: list[int]) -> list[bool]:
        """Whether each step is among the best or has no readable record: damaged checkpoints are not deleted."""
        best = _ranked(steps, self._score)[: self._keep_best]
        return [step in best or step not in self._scores for step in steps]

    def wait(self) -> None:
        """Wait until the last save is on disk.

        Raises:
          UserError: the save failed.
        """
        with self._failures(None):
            saved.wait(self._manager, self.folder, self._cluster.alone)
            self._finish_replacing()
            self._delete_removed()

    def close(self) -> None:
        """Release the threads of orbax; after a failed save, those of several processes would wait for each other."""
        if self._cluster.alone or not self._failed:
            self._manager.close()

    def newest_sound(
        self, target: State, sharding: Sharding | State, *, set_aside: bool
    ) -> tuple[Restored | None, list[str]]:
        """The newest checkpoint that is whole, and one line for each newer one that is not.

        Args:
          target: shapes and dtypes of the state, as from `jax.eval_shape`.
          sharding: sharding of the restored arrays, one for all or a state of them; the saved arrays may have had
            another.
          set_aside: whether to rename damaged checkpoints to `damaged-<step>` if a sound one is found, so that their
            steps can be saved again.

        Raises:
          UserError: a checkpoint belongs to another model, or checkpoints exist but none is sound.
        """
        damaged: list[int] = []
        remarks: list[str] = []
        causes: list[BaseException | None] = []
        for step in reversed(self.steps()):
            try:
                restored = self.restore(step, target, sharding)
            except DamagedError as error:
                damaged.append(step)
                causes.append(error.__cause__)
                remarks.append(f"{error}; using the previous checkpoint instead")
                continue
            if set_aside and damaged:
                for each in damaged:
                    self._rename(str(each), free_name(self.folder / f"damaged-{each}").name)
            return restored, remarks
        if damaged and all(isinstance(cause, _OF_THE_LIBRARY) for cause in causes):
            raise UserError(self._another_orbax(damaged[0], causes[0]))
        if damaged:
            raise UserError(
                f"{self.folder}: no undamaged checkpoint is left among those of steps {', '.join(map(str, damaged))} "
                f"({remarks[0].partition(';')[0]}); restore one from a backup, or start again in another workdir"
            )
        return None, remarks

    def _another_orbax(self, step: int, error: BaseException | None) -> str:
        """The error message if orbax can read no checkpoint, for a reason other than the content of its files."""
        written = (seals.read_record(self.folder / str(step)) or {}).get("packages", {}).get("orbax-checkpoint")
        return (
            f"orbax-checkpoint {packages()['orbax-checkpoint']} cannot read the checkpoints in {self.folder}, which "
            f"orbax-checkpoint {written or 'of another version'} wrote ({type(error).__name__}: {error}); install that "
            "version"
        )

    def restore(self, step: int, target: State, sharding: Sharding | State) -> Restored:
        """Restore one checkpoint and verify it.

        Raises:
          DamagedError: the checkpoint is not whole.
          UserError: the checkpoint belongs to another model.
        """
        each = sharding if isinstance(sharding, State) else jax.tree.map(lambda _: sharding, target)
        wanted = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            seals.tree_of(target),
            seals.tree_of(each),
        )
        read = self._read if self._cluster.alone else self._read_apart
        tree, record = read(step, wanted)
        # Parts without arrays (batch_stats of a network without BatchNorm, an absent moving average) were not saved.
        empty = {name: value for name, value in flax.serialization.to_state_dict(target).items() if name not in tree}
        tree |= empty | {"hyper": {"task": {}} | tree["hyper"]}
        return Restored(flax.serialization.from_state_dict(target, tree), record)

    def _read(self, step: int, wanted: Any) -> tuple[Any, dict[str, Any]]:
        try:
            seals.check_files(self.folder / str(step))
            record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
            seals.check_record(record)
        except Exception as error:
            raise damage_of(step, error) from error
        self._same_model(step, record["arrays"], wanted)
        try:
            tree = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted)))["state"]
            seals.check_arrays(tree, record)
        except Exception as error:  # orbax raises a bare Exception for a truncated file
            raise damage_of(step, error) from error
        return tree, record

    def _read_apart(self, step: int, wanted: Any) -> tuple[Any, dict[str, Any]]:
        """Like `_read`, without orbax's barriers; all processes find the checkpoint whole, or all find it damaged."""
        folder = (self.folder / str(step)).absolute()
        tree: Any = None
        record: dict[str, Any] = {}
        damage: str | None = None
        try:
            seals.check_files(folder)
            record = ocp.JsonCheckpointHandler().restore(folder / "record", args=ocp.args.JsonRestore())
            seals.check_record(record)
        except Exception as error:
            damage = str(damage_of(step, error))
        if not any(self._cluster.gather(damage)):
            self._same_model(step, record["arrays"], wanted)
            on_host = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), wanted)
            try:
                tree = ocp.StandardCheckpointHandler().restore(folder / "state", args=ocp.args.StandardRestore(on_host))
                seals.check_arrays(tree, record)
            except Exception as error:
                damage = str(damage_of(step, error))
        for host, found in zip(self._cluster.hosts, self._cluster.gather(damage), strict=True):
            if found:
                raise DamagedError(step, ValueError(f"on {host}: {found}"))
        return jax.tree.map(lambda leaf, like: put(leaf, like.sharding), tree, wanted), record

    def _rename(self, old: str, new: str) -> None:
        """Process 0 renames a checkpoint while the others wait; then all list the folder again."""
        self._cluster.of_first(lambda: str((self.folder / old).rename(self.folder / new)))
        self._manager.reload()

    def _same_model(self, step: int, sealed: dict[str, Any], wanted: Any) -> None:
        here = {name: [list(leaf.shape), str(leaf.dtype)] for name, leaf in seals.leaves(wanted)}
        there = {name: seal[:2] for name, seal in sealed.items()}
        if here != there:
            name = min(n for n in here.keys() | there.keys() if here.get(n) != there.get(n))
            raise UserError(
                f"{self.folder}/{step} is a checkpoint of another model: {name} is {there.get(name, 'absent')} there, "
                f"{here.get(name, 'absent')} in this config"
            )

    def _finish_replacing(self) -> None:
        """Remove replaced checkpoints; bring one back if its new one was never finished. Only process 0 does this."""
        self._replacing = False
        if not self._cluster.first:
            return
        for old in self.folder.glob(f"{REPLACED}*"):
            new = self.folder / old.name.removeprefix(REPLACED)
            if new.exists():
                shutil.rmtree(old)
            else:
                old.rename(new)

    def _delete_removed(self) -> None:
        """Delete the checkpoints that orbax has removed from those kept. Only process 0 does this."""
        if self._cluster.first and (self.folder / REMOVED).exists():
            shutil.rmtree(self.folder / REMOVED)

    @contextlib.contextmanager
    def _failures(self, step: int | None) -> Iterator[None]:
        """Turn a failure to write into a `UserError`."""
        try:
            yield
        except Exception as error:
            if not self._cluster.alone and of_a_collective(error):
                raise  # not caused by the folder
            self._failed = True
            what = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            raise UserError(
                f"{self.folder}: {what} could not be saved: {reason_of(error)}; free some space or repair the folder, "
                "then run the same command: it resumes from the newest finished checkpoint"
            ) from error


class _Best(PreservationPolicy):
    """Keeps the checkpoints of the highest scores on validation.

    orbax's own policy knows only the scores of checkpoints that this process saved, and would delete the best one
    of an earlier start.
    """

    def __init__(self, worth_keeping: Callable[[list[int]], list[bool]]) -> None:
        self._worth_keeping = worth_keeping

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Whether orbax keeps each checkpoint."""
        return self._worth_keeping([info.step for info in checkpoints])


class _Multiples(PreservationPolicy):
    """Keeps the checkpoints of the multiples of a number of steps, but not that of step 0.

    Only a run that is stopped before its first step saves step 0, and what is kept must not depend on a stop.
    """

    def __init__(self, every: int) -> None:
        self._every = every

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Whether orbax keeps each checkpoint."""
        return [info.step > 0 and info.step % self._every == 0 for info in checkpoints]


def _ranked(steps: Iterable[int], score_of: Callable[[int], float | None]) -> list[int]:
    """The evaluated steps, best first; of equals, the earliest first, as for `Progress.best_step`.

    A step whose score is not finite is no evaluated one.
    """
    known = [(-score, step) for step in steps if (score := score_of(step)) is not None and math.isfinite(score)]
    return [step for _, step in sorted(known)]
