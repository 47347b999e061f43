"""A trained network from a workdir, for evaluation and prediction."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from jaxcnn.config import Config, Optim, Schedule, UserError, open_names
from jaxcnn.data.batch import Constants, Split
from jaxcnn.learn import programs, sharded
from jaxcnn.learn import tta as views
from jaxcnn.learn.step_spec import StepSpec, spec_without_data
from jaxcnn.machine import mesh as meshes
from jaxcnn.tasks import by_name
from jaxcnn.tasks.headline import Headline
from jaxcnn.tasks.task import Collector
from jaxcnn.train import fitted, normalization, origin, saved, seals, workdir
from jaxcnn.train.checkpoint import Checkpoints
from jaxcnn.train.damage import DamagedError
from jaxcnn.train.evaluate import evaluate
from jaxcnn.train.loaders import Loader, choose_loader, eval_batch_size, make_loader

TESTED = (
    "tested"  # the checkpoint of a run that its test uses: the last, or the best with `config.run.test_with="best"`
)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network with the weights of one checkpoint.

    Attributes:
      step: step of the checkpoint.
      weights: "last", the parameters of that step, or "ema", their moving average.
      variables: Flax variables, on the mesh.
      fitted: what was fitted to the validation split with these weights (`jaxcnn.tasks.task.Collector.fitted`).
    """

    config: Config
    spec: StepSpec
    mesh: jax.sharding.Mesh
    step: int
    weights: str
    variables: Any
    constants: Constants
    class_names: tuple[str, ...]
    fitted: dict[str, Any]

    def evaluate(self, split: Split, batch_size: int = 0, collector: Collector | None = None) -> dict[str, Any]:
        """The figures of a split, as in `test.json`.

        Args:
          split: the split.
          batch_size: examples per batch; 0: the batch size of training.
          collector: collects the outputs; None: a new one of the task.
        """
        collector = collector or self.spec.task.evaluation.collector(self.constants)
        tta, share = self.config.run.tta, self.config.run.tta_share
        loader, batch_size = self._loader(split), eval_batch_size(batch_size, self.spec, self.mesh)
        means = evaluate(loader, split, self.variables, self.constants, batch_size, _go_on, tta, collector, share)
        told = {} if tta == "none" else {"tta": views.described(tta, share)}
        return means | collector.figures(self.class_names, self.fitted) | told

    def _loader(self, split: Split) -> Loader:
        kind, _ = choose_loader(self.config.data, [split])
        return make_loader(kind, self.spec, self.mesh, self.config.seed, self.config.data.workers)

    def outputs(self, split: Split, batch_size: int, tta: str = "none") -> np.ndarray:
        """The outputs of the network, float32 [N, K], for every example of a split, in its order.

        They are averaged over the views of `tta`, the kind of test-time augmentation.
        """
        batch_size = eval_batch_size(batch_size, self.spec, self.mesh)
        step = programs.tta_eval_step(self.spec, self.mesh, batch_size, tta)
        parts: list[np.ndarray] = []
        with self._loader(split).eval_batches(split, batch_size) as batches:
            for batch in batches:
                _, outputs = step(self.variables, batch, self.constants)[-1]
                parts.append(np.asarray(outputs)[np.asarray(batch.mask)])
        return np.concatenate(parts)


def _go_on() -> None:
    """Do nothing: nothing interrupts the evaluation of a trained network."""


def spec_of(config: Config, facts: dict[str, Any]) -> StepSpec:
    """The spec of the trained network of a run, from its config and the facts of its data.

    What only training uses is left out if it is code of the user: it may be gone, and no answer depends on it.
    """
    config = _without_code_of_training(config)
    shape = tuple(facts["image_shape"])
    spec = spec_without_data(config, shape, len(facts["class_names"]), facts["train_examples"])
    # Only one set of weights is used, and every device needs all of it.
    return dataclasses.replace(spec, task=spec.task.trained, shard_optimizer=False, shard_params=False)


def _without_code_of_training(config: Config) -> Config:
    """The config without the user's augmentations, optimiser, schedule and loggers."""
    optim, schedule = config.optim, config.schedule
    if any(open_names.foreign(optim)):
        optim = dataclasses.replace(optim, name=Optim.name)
    if any(open_names.foreign(schedule)):
        schedule = dataclasses.replace(schedule, name=Schedule.name)
    augment, run = dataclasses.replace(config.augment, own=()), dataclasses.replace(config.run, loggers=())
    return dataclasses.replace(config, optim=optim, schedule=schedule, augment=augment, run=run)


def load(
    folder: pathlib.Path, checkpoint: str, weights: str, devices: int, config: Config | None = None
) -> tuple[Trained, list[str]]:
    """The network of a workdir, and remarks on checkpoints that had to be skipped.

    Args:
      folder: the workdir.
      checkpoint: `TESTED`, "last", "best" (on the validation split) or a step.
      weights: "last", "ema", or "" for the moving average if the run keeps one, else "last".
      devices: number of devices to use; 0: all.
      config: the config of the workdir, if its open names are others in this process; None: as in its file.

    Raises:
      UserError: the folder has no run, no such checkpoint or no such weights, or files of it are damaged.
    """
    config = config or workdir.read_config(folder)
    facts = workdir.read_data_facts(folder)
    origin.check(folder, config, facts)
    meshes.prepare_backend()
    mesh = meshes.make_mesh(devices)
    spec = spec_of(config, facts)
    checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint, read_only=True)
    target, sharding = sharded.abstract_state(spec, mesh), meshes.replicated(mesh)
    # The checkpoint also has the settings of the training loss, which the task of a trained network lacks.
    hyper = dataclasses.replace(target.hyper, task=dict.fromkeys(by_name.settings(config.task), target.hyper.momentum))
    target = dataclasses.replace(target, hyper=hyper)
    if any(open_names.foreign(config.optim)):
        target = dataclasses.replace(target, opt_state=saved.optimizer(folder / "checkpoints"))
    remarks: list[str] = []
    if checkpoint == TESTED:
        checkpoint = "best" if config.run.test_with == "best" and checkpoints.best() is not None else "last"
    if checkpoint == "last":
        newest, remarks = checkpoints.newest_sound(target, sharding, set_aside=False)
        if newest is None:
            raise UserError(f"{folder}/checkpoints holds no checkpoint; train first")
        restored = newest
    else:
        step, remarks = (
            _best_step(checkpoints, spec.task.evaluation.headline) if checkpoint == "best" else (_step(checkpoint), [])
        )
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
        raise UserError(f"--weights=ema: {folder} keeps no average (config.optim.ema_decay=0 and swa_from=0)")
    variables = state.variables() if weights == "last" else state.ema
    normal = normalization.read(folder, config.augment.normalize, spec.image_shape[-1])
    origin.check(folder, config, facts, normal)
    task = spec.task.loss.constants(config.task, facts["class_names"], facts.get("targets", {}), None)
    constants = jax.device_put(dataclasses.replace(normal, task=task), sharding)
    names = tuple(facts["class_names"])
    step = int(state.step)
    fit = fitted.read(folder, step, weights)
    return Trained(config, spec, mesh, step, weights, variables, constants, names, fit), remarks


def _step(checkpoint: str) -> int:
    try:
        return int(checkpoint)
    except ValueError:
        raise UserError(f"--checkpoint={checkpoint} is not tested, last, best or a step") from None


def _best_step(checkpoints: Checkpoints, headline: Headline) -> tuple[int, list[str]]:
    """The kept step that is the best on validation, and a remark if a better one is not kept."""
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
    score = progress.get("best_score", progress.get("best_accuracy"))
    return step, [
        f"the best step was {best} ({headline.shown(headline.value(score))}), but its checkpoint no longer exists; "
        f"{step} is the best one that is kept"
    ]
