"""A trained network from a workdir, for evaluation and prediction."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxcnn.config import Config, UserError
from jaxcnn.data.batch import Normalization, Split
from jaxcnn.learn import programs, sharded
from jaxcnn.learn.step_spec import StepSpec, make_spec
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import normalization, origin, seals, workdir
from jaxcnn.train.checkpoint import Checkpoints, DamagedError
from jaxcnn.train.loaders import choose_loader, eval_batch_size, make_loader

MOST_AT_ONCE = 2**26  # logits held at once, 256 MiB


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network with the weights of one checkpoint.

    Attributes:
      step: step of the checkpoint.
      weights: "last", the parameters of that step, or "ema", their moving average.
      variables: Flax variables, on the mesh.
    """

    config: Config
    spec: StepSpec
    mesh: jax.sharding.Mesh
    step: int
    weights: str
    variables: Any
    normalization: Normalization
    class_names: tuple[str, ...]


def load(folder: pathlib.Path, checkpoint: str, weights: str, devices: int) -> tuple[Trained, list[str]]:
    """The network of a workdir, and remarks on checkpoints that had to be skipped.

    Args:
      folder: the workdir.
      checkpoint: "last", "best" (on the validation split) or a step.
      weights: "last", "ema", or "" for the moving average if the run keeps one, else "last".
      devices: number of devices to use; 0: all.

    Raises:
      UserError: the folder has no run, no such checkpoint or no such weights, or files of it are damaged.
    """
    config = workdir.read_config(folder)
    facts = workdir.read_data_facts(folder)
    origin.check(folder, config, facts)
    meshes.prepare_backend()
    mesh = meshes.make_mesh(devices)
    spec = make_spec(
        config,
        num_classes=len(facts["class_names"]),
        image_shape=tuple(facts["image_shape"]),
        train_examples=facts["train_examples"],
    )
    # Only one set of weights is used, and every device needs all of it.
    spec = dataclasses.replace(spec, shard_optimizer=False, shard_params=False)
    checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint, read_only=True)
    target, sharding = sharded.abstract_state(spec, mesh), meshes.replicated(mesh)
    remarks: list[str] = []
    if checkpoint == "last":
        newest, remarks = checkpoints.newest_sound(target, sharding, set_aside=False)
        if newest is None:
            raise UserError(f"{folder}/checkpoints holds no checkpoint; train first")
        restored = newest
    else:
        step, remarks = _best_step(checkpoints) if checkpoint == "best" else (_step(checkpoint), [])
        if step not in checkpoints.steps():
            raise UserError(f"{folder} has no checkpoint {step}; it has {', '.join(map(str, checkpoints.steps()))}")
        try:
            restored = checkpoints.restore(step, target, sharding)
        except DamagedError as error:
            raise UserError(f"{error}; choose another with --checkpoint") from error
    checkpoints.close()
    state = restored.state
    weights = weights or ("last" if state.ema is None else "ema")
    if weights == "ema" and state.ema is None:
        raise UserError(f"--weights=ema: {folder} keeps no moving average (config.optim.ema_decay=0)")
    variables = state.variables() if weights == "last" else state.ema
    normal = normalization.read(folder, config.augment.normalize, spec.image_shape[-1])
    origin.check(folder, config, facts, normal)
    normal = jax.device_put(normal, sharding)
    names = tuple(facts["class_names"])
    return Trained(config, spec, mesh, int(state.step), weights, variables, normal, names), remarks


def logits_of_split(trained: Trained, split: Split, batch_size: int, tta: str = "none") -> np.ndarray:
    """Logits float32 [N, K] of every example of a split, in its order, averaged over the views of `tta`."""
    return np.concatenate([logits for logits, _ in logits_by_part(trained, split, batch_size, tta)])


def logits_by_part(
    trained: Trained, split: Split, batch_size: int, tta: str = "none", most: int = MOST_AT_ONCE
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`logits_of_split` in parts: logits float32 [n, K], labels int32 [n]; one part if at most `most` logits in all."""
    kind, _ = choose_loader(trained.config.data, [split])
    loader = make_loader(kind, trained.spec, trained.mesh, trained.config.seed, trained.config.data.workers)
    batch_size = eval_batch_size(batch_size, trained.spec, trained.mesh)
    step = programs.tta_eval_step(trained.spec, trained.mesh, batch_size, tta)
    parts, labels, told = [], [], 0
    with loader.eval_batches(split, batch_size) as batches:
        for batch in batches:
            _, logits = step(trained.variables, batch, trained.normalization)[-1]
            mask = np.asarray(batch.mask)
            parts.append(np.asarray(logits)[mask])
            labels.append(np.asarray(batch.label)[mask])
            if sum(part.size for part in parts) > most:
                told += _check_labels(split, labels, told)
                yield np.concatenate(parts), np.concatenate(labels)
                parts, labels = [], []
    if parts:
        told += _check_labels(split, labels, told)
        yield np.concatenate(parts), np.concatenate(labels)
    if told != len(split):
        raise AssertionError(f"{split.description}: {told} of {len(split)} examples were evaluated")


def _check_labels(split: Split, labels: list[np.ndarray], first: int) -> int:
    """Check that the labels are those of the split from `first` on; return their number."""
    found = np.concatenate(labels)
    if not np.array_equal(found, split.labels[first : first + len(found)]):
        raise AssertionError(f"{split.description}: the evaluated examples are not those of the split")
    return len(found)


def _step(checkpoint: str) -> int:
    try:
        return int(checkpoint)
    except ValueError:
        raise UserError(f"--checkpoint={checkpoint} is not last, best or a step") from None


def _best_step(checkpoints: Checkpoints) -> tuple[int, list[str]]:
    """The kept step with the highest validation accuracy, and a remark if a better one is not kept."""
    step = checkpoints.best()
    if step is None:
        raise UserError(
            f"{checkpoints.folder} has no checkpoint that was evaluated on a validation split; use --checkpoint=last"
        )
    newest = seals.read_record(checkpoints.folder / str(checkpoints.steps()[-1])) or {}
    progress = newest.get("progress", {})
    best = progress.get("best_step", step)
    if best in (0, step):
        return step, []
    accuracy = 100 * progress["best_accuracy"]
    return step, [
        f"the best step was {best} ({accuracy:.2f}%), but its checkpoint no longer exists; {step} is the best one that "
        "is kept"
    ]
