"""The settings that follow from a config, its data and the devices, before anything is compiled."""

import concurrent.futures
import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from jaxcnn.config import Config, ConfigError
from jaxcnn.data.batch import Constants
from jaxcnn.data.selection import weights_of
from jaxcnn.data.source import Splits
from jaxcnn.learn import programs, tta
from jaxcnn.learn.executables import Program
from jaxcnn.learn.network import check_layers, check_quantized, check_sides
from jaxcnn.learn.step_spec import StepSpec, make_spec
from jaxcnn.machine import mesh as meshes
from jaxcnn.tasks import by_name, example_weights, kept, monitor
from jaxcnn.text import counted
from jaxcnn.train import limits, loaders, teachers
from jaxcnn.train.hooks import Shared
from jaxcnn.train.steps_per_call import choose_steps_per_call


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """The settings that training, sweeps, scaling and benchmarks all determine in the same way before they compile.

    Attributes:
      config: the checked config.
      splits: the splits of its data.
      mesh: the mesh of the devices.
      spec: the spec for which the step is compiled.
      loader: "resident" or "stream".
      steps_per_call: the most steps in one call of the compiled program.
      why_loader, why_steps: the reasons for the choice of these two, in a few words.
    """

    config: Config
    splits: Splits
    mesh: Mesh
    spec: StepSpec
    loader: str
    steps_per_call: int
    why_loader: str
    why_steps: str

    @property
    def eval_batch_size(self) -> int:
        """The number of examples in an evaluation batch, a multiple of the number of devices."""
        return loaders.eval_batch_size(self.config.run.eval_batch_size, self.spec, self.mesh)

    @property
    def train_steps(self) -> list[tuple[Any, ...]]:
        """The arguments of `programs.train_step` for each stage of the run, in order."""
        return [(stage, self.mesh, self.loader, self.steps_per_call) for _, stage in self.spec.stages]

    def constants(self, normal: Constants) -> Constants:
        """The constants of the step on the mesh, from the normalisation and the targets of the training split."""
        targets = self.splits.train.targets
        of_task = self.spec.task.loss.constants(
            self.config.task, self.splits.class_names, self.splits.kind.facts(targets), targets
        )
        if (weights := weights_of(self.splits.train)) is not None:
            of_task |= {example_weights.NAME: weights}
        if self.config.task.teacher:
            of_task |= {"teacher": jax.device_get(teachers.constants(self.config))}
        replicated = meshes.replicated(self.mesh)
        return dataclasses.replace(normal, task=jax.tree.map(lambda leaf: meshes.put(leaf, replicated), of_task))

    def make_loader(self, shared: Shared | None = None) -> loaders.Loader:
        """The loader; `shared` has the data that runs in this process share."""
        return loaders.make_loader(
            self.loader, self.spec, self.mesh, self.config.seed, self.config.data.workers, shared
        )

    def programs(self) -> list[tuple[Program, tuple[Any, ...]]]:
        """The compiled programs that the run needs, with their arguments; the most expensive ones first."""
        config, spec, mesh, batch_size = self.config, self.spec, self.mesh, self.eval_batch_size
        needed: list[tuple[Program, tuple[Any, ...]]] = [
            *((programs.train_step, arguments) for arguments in self.train_steps),
            (programs.init_state, (spec, mesh)),
        ]
        evaluated = [split for split in (self.splits.val, self.splits.test) if split is not None]
        if evaluated:
            needed.append((programs.eval_step, (spec, mesh, batch_size)))
            if config.run.tta != "none" and self.splits.test is not None:
                views = (spec, mesh, batch_size, config.run.tta)
                needed += [(programs.tta_views, views), (programs.tta_sums, views)]
            if spec.optim.averages and spec.shard_optimizer and not spec.shard_params:
                needed.append((programs.whole_average, (spec, mesh)))
        if config.run.curves and (test := self.splits.test) is not None and kept.fits(spec.task, len(test)):
            needed.append((programs.of_each, (spec, meshes.alone(mesh), len(test))))
        if self.loader == "resident":
            sizes = {len(split) for split in evaluated}
            if config.run.tta_share < 1 and (test := self.splits.test) is not None:
                sizes.add(tta.chosen(len(test), config.run.tta_share))
            needed += [(programs.eval_batch, (spec, mesh, batch_size, size)) for size in sorted(sizes)]
        return needed

    def start_compiling(
        self, pool: concurrent.futures.Executor
    ) -> list[concurrent.futures.Future[jax.stages.Compiled]]:
        """Trace and lower the programs of the run that are not kept; compile, or load, all of them in the background.

        `jaxcnn.learn.programs` then has them, so nothing compiles during the run.
        """
        started = []
        for program, arguments in self.programs():
            if not program.is_kept(*arguments):
                program.lowered(*arguments)
            started.append(pool.submit(program, *arguments))
        return started


def on(config: Config, splits: Splits, mesh: Mesh) -> Setup:
    """The setup of a config on these splits and this mesh.

    Raises:
      ConfigError: config, splits and mesh do not fit together.
      MissingExtra: the loader needs a package that is not installed.
    """
    spec = spec_on(config, splits)
    meshes.check_batch(config, meshes.data_devices(mesh))
    loader, why_loader = loaders.choose_loader(config.data, (splits.train, splits.val, splits.test))
    steps, why_steps = choose_steps_per_call(config.run.steps_per_call, loader, mesh.devices.flat[0].platform)
    return Setup(config, splits, mesh, spec, loader, steps, why_loader, why_steps)


def spec_on(config: Config, splits: Splits) -> StepSpec:
    """The spec of the step for these splits.

    Raises:
      ConfigError: the splits do not fit the config.
    """
    outputs, examples = len(splits.class_names), len(splits.train)
    if config.model.num_classes not in (0, outputs):
        raise ConfigError(
            f"config.model.num_classes={config.model.num_classes}, but {splits.train.description} has {outputs} "
            "classes; set it to 0 to follow the data"
        )
    if examples < config.global_batch_size:
        raise ConfigError(
            f"{splits.train.description} has {counted(examples, 'example')}, fewer than one batch of "
            f"config.global_batch_size={config.global_batch_size}; lower it"
        )
    monitor.check_size(config.task, outputs, 0 if splits.val is None else len(splits.val))
    shape = splits.train.image_shape
    teacher = teachers.of(config, splits) if config.task.teacher else None
    task = by_name.make(
        config.task,
        outputs,
        teacher,
        0 if weights_of(splits.train) is None else examples,
        sides=shape[:2],
        network=config.model.name,
    )
    spec = make_spec(config, task=task, image_shape=shape, train_examples=examples)
    check_sides(spec)
    check_layers(spec)
    check_quantized(spec, drawn=not config.init.source)
    limits.check_spec(config, spec)
    return spec
