"""One start of a run, up to its first step: data, devices, programs, and a new or restored state."""

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator

import jax

from jaxcnn.config import Config, ConfigError
from jaxcnn.data import cache_limit
from jaxcnn.data.batch import Constants
from jaxcnn.data.source import Splits
from jaxcnn.learn import layout, programs, rates, sharded, sharing
from jaxcnn.learn.network import layers_of
from jaxcnn.learn.state import State, count_parameters, make_hyper
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine import malloc, paths, plugins
from jaxcnn.machine import mesh as meshes
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.tasks import by_name
from jaxcnn.text import counted
from jaxcnn.train import (
    environment,
    limits,
    loaders,
    norm_statistics,
    normalization,
    origin,
    patience,
    probe,
    seals,
    starting,
    summary,
    workdir,
)
from jaxcnn.train import setup as setups
from jaxcnn.train.checkpoint import Checkpoints
from jaxcnn.train.hooks import Evaluation, Hooks
from jaxcnn.train.interrupts import Interrupts
from jaxcnn.train.logbook import Logbook
from jaxcnn.train.progress import Progress
from jaxcnn.train.setup import Setup
from jaxcnn.train.terminal import LOOK, Length


@dataclasses.dataclass
class Session:
    """Everything that one start of a run holds; `step` counts the steps that were started."""

    config: Config
    folder: pathlib.Path
    started: float
    interrupts: Interrupts
    splits: Splits
    mesh: jax.sharding.Mesh
    spec: StepSpec
    loader: loaders.Loader
    constants: Constants
    logbook: Logbook
    checkpoints: Checkpoints
    progress: Progress
    state: State
    hooks: Hooks
    cluster: Cluster
    steps_per_call: int = 1
    window_started: float = 0.0
    time_to_first_step: float = 0.0
    step: int = 0
    saved: int = -1
    evaluation: Evaluation | None = None  # the last one of this start

    @property
    def length(self) -> Length:
        """The length of the run, with how its progress is counted on a terminal."""
        return Length(self.spec.total_steps, self.spec.steps_per_epoch, bool(self.config.run.steps))


def open_session(
    config: Config,
    folder: pathlib.Path,
    started: float,
    interrupts: Interrupts,
    logbook: Logbook,
    command: list[str],
    hooks: Hooks,
    cluster: Cluster,
) -> Session:
    """Prepare data, devices, programs and state, up to the first step.

    Files that later starts are checked against are written only when all of this has succeeded.
    """
    meshes.prepare_backend()
    mesh = meshes.make_mesh(config.parallel.devices, config.parallel.model_devices)
    meshes.check_batch(config, meshes.data_devices(mesh))
    if is_new := seals.newest_record(folder / "checkpoints") is None:
        starting.check(config.init)
    interrupts.enter("data")
    logbook.say(f"jaxcnn: reading {config.data.source}")
    found = setups.on(config, _read(config, hooks, cluster), mesh)
    if cluster.first:
        workdir.check_data_facts(folder, found.splits)
    cache_limit.keep(paths.cache_folder())
    interrupts.enter("compile")
    _tell(found, folder, logbook)
    loader = found.make_loader(hooks.shared)
    start = starting.of(config, found.spec, found.splits, cluster) if is_new else None
    normal, state, compile_seconds, drawing = _compile(found, loader, folder, logbook, hooks, cluster, start)
    checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint, cluster=cluster)
    state, progress, resumes = _restore_or_begin(
        found, folder, state, normal, checkpoints, logbook, cluster, drawing, start
    )
    progress.starts += 1
    progress.compile_seconds += compile_seconds
    remarks = logbook.open(progress.log_bytes, int(state.step), crc32=progress.log_crc32, resumes=resumes)
    for remark in remarks:
        logbook.say(f"jaxcnn: {remark}", LOOK)
    if cluster.first:
        summary.set_aside(folder)
        workdir.write_config(folder, config)
        workdir.write_data_facts(folder, found.splits)
        environment.write(folder, command, cluster.hosts)
    return Session(
        config=config,
        folder=folder,
        started=started,
        interrupts=interrupts,
        splits=found.splits,
        mesh=mesh,
        spec=found.spec,
        loader=loader,
        constants=normal,
        logbook=logbook,
        checkpoints=checkpoints,
        progress=progress,
        state=state,
        hooks=hooks,
        cluster=cluster,
        steps_per_call=found.steps_per_call,
        step=int(state.step),
        saved=int(state.step) if resumes else -1,
    )


def _read(config: Config, hooks: Hooks, cluster: Cluster) -> Splits:
    """The splits, the same ones in all processes."""
    with cluster.one_per_host_first():
        splits = hooks.shared.splits(config.data, config.task)
        splits.fingerprints()  # read only once for all processes of a host
    workdir.check_same_data(cluster, splits)
    return splits


def _tell(found: Setup, folder: pathlib.Path, logbook: Logbook) -> None:
    """Print what will be trained, on which data, and on which devices."""
    config, splits = found.config, found.splits
    where = f"{splits.train.description}, {meshes.describe(found.mesh)}, in {folder}"
    logbook.say(f"jaxcnn: {config.model.name} on {where}")
    for line in plugins.told(config):
        logbook.say(f"  {line}")
    _tell_of_splits(config, splits, logbook)
    logbook.say(f"  loader {found.loader} ({found.why_loader})")
    if found.steps_per_call > 1:
        logbook.say(f"  up to {found.steps_per_call} steps in one call ({found.why_steps})")
    if base := config.optim.base_batch_size:
        rate = f"{config.optim.learning_rate:g} x {config.global_batch_size} / {base}"
        scaled = f"{make_hyper(config).learning_rate:g}"
        logbook.say(f"  learning rate {scaled}, which is {rate} (config.optim.base_batch_size)")


def _compile(
    found: Setup,
    loader: loaders.Loader,
    folder: pathlib.Path,
    logbook: Logbook,
    hooks: Hooks,
    cluster: Cluster,
    start: starting.Start | None,
) -> tuple[Constants, State, float, float]:
    """Compile all programs while the data is loaded, and draw a new state.

    Returns the constants, the state, the seconds of all this, and those of drawing the state.
    """
    config, spec, mesh, splits = found.config, found.spec, found.mesh, found.splits
    began = time.monotonic()
    limits.check_memory(config, spec, mesh, found.loader, splits)
    key = repr((config.model, config.global_batch_size, splits.train.image_shape, found.loader, meshes.describe(mesh)))
    kept = programs.init_state.is_kept(spec, mesh)
    what, before = ("loading", None) if kept else ("compiling", patience.last_time(key))
    with (
        patience.shown(f"{what} {config.model.name}", logbook.console, logbook.say, before=before),
        _compilers() as pool,
    ):
        compiling = found.start_compiling(pool)
        for line in layout.describe(spec, mesh, sharded.abstract_state(spec, mesh).params):
            logbook.say(f"  {line}")
        place, of_weights = meshes.replicated(mesh), start.normal if start else None
        normal = normalization.of_split(
            splits.train, config.augment, folder, place, hooks.shared.statistics, cluster, of_weights
        )
        loader.prepare(splits.train)
        limits.check_compiled(spec, mesh, found.loader, splits, [compiled.result() for compiled in compiling])
    ready = time.monotonic()
    state = jax.block_until_ready(programs.init_state(spec, mesh)(make_hyper(config)))
    drawing = time.monotonic() - ready
    malloc.keep()
    seconds = time.monotonic() - began
    if not kept:
        patience.took(key, seconds)
    hooks.shared.compile_seconds.setdefault(spec, seconds)
    logbook.say(
        f"  {count_parameters(state.params):,} parameters, {counted(spec.total_steps, 'step')} of "
        f"{spec.global_batch_size}; compiled in {seconds:.1f} s"
    )
    return found.constants(normal), state, seconds, drawing


def _restore_or_begin(
    found: Setup,
    folder: pathlib.Path,
    state: State,
    normal: Constants,
    checkpoints: Checkpoints,
    logbook: Logbook,
    cluster: Cluster,
    drawing: float,
    start: starting.Start | None,
) -> tuple[State, Progress, bool]:
    """The state and progress of the newest sound checkpoint, or of a new run; and whether a checkpoint was found.

    `drawing`: the seconds that drawing the new state took.
    """
    if cluster.first:
        origin.check(folder, found.config, workdir.data_facts(found.splits), normal)
    shardings = sharded.state_shardings(found.spec, found.mesh)
    restored, remarks = checkpoints.newest_sound(state, shardings, set_aside=True)
    for remark in remarks:
        logbook.say(f"jaxcnn: {remark}", LOOK)
    if restored is None:
        began = time.monotonic()
        state = starting.initialize_from_data(state, found.splits, normal)
        if found.config.init.source:
            # Its weights are read again only if the run has checkpoints of which none is sound.
            start = start or starting.of(found.config, found.spec, found.splits, cluster)
            state = starting.begin(start, found, state, folder if cluster.first else None, logbook.say)
            state = norm_statistics.reestimated(found, state, normal, logbook.say)
            if found.config.init.head == "fitted":
                state = probe.fitted(found, state, normal, logbook.say)
        if values := found.spec.optim.shared_values:
            sharing.check(values, rates.trainable(state.params, layers_of(found.spec, state.batch_stats)))
        state = jax.block_until_ready(state)
        return state, Progress(reset_seconds=drawing + time.monotonic() - began), False
    progress = Progress.of_record(restored.record["progress"], found.spec.task.evaluation.metrics)
    _check_best(found.config, checkpoints, progress)
    here = meshes.describe(found.mesh)
    logbook.say(f"jaxcnn: resumed from the checkpoint of step {int(restored.state.step)}")
    if (before := restored.record.get("devices")) not in (None, here):
        logbook.say(f"  it was saved on {before}; the run continues on {here}: only the rounding changes")
    return restored.state, progress, True


def _check_best(config: Config, checkpoints: Checkpoints, progress: Progress) -> None:
    """Refuse to train to the end if the checkpoint that the test needs is already lost."""
    best = progress.best_step
    if config.run.test_with == "best" and best and best not in checkpoints.steps():
        raise ConfigError(
            f"config.run.test_with='best', but the best checkpoint so far, of step {best}, is not in "
            f"{checkpoints.folder}; restore it, or continue with --config.run.test_with=last"
        )


def _tell_of_splits(config: Config, splits: Splits, logbook: Logbook) -> None:
    for note in (*splits.notes, *splits.leaks()):
        logbook.say(f"  {note}", LOOK)
    for split in (splits.train, splits.val, splits.test):
        if split is not None:
            logbook.say(
                f"  {split.name}: {counted(len(split), 'example')} of "
                f"{counted(len(splits.class_names), 'class', 'classes')}, {split.description}"
            )
    logbook.say(f"  classes: {splits.kind.describe(splits.train.targets, splits.class_names)}")
    if line := by_name.remark(config.task, splits.kind.facts(splits.train.targets), splits.class_names):
        logbook.say(f"  {line}", LOOK)
    if splits.val is None:
        logbook.say("  protocol=full: trains on the whole training split; nothing is held out for validation")


@contextlib.contextmanager
def _compilers() -> Iterator[concurrent.futures.Executor]:
    """Threads that compile; an accelerator gets one, because its compiler times kernels on the device.

    XLA cannot be interrupted. So after an exception, such as KeyboardInterrupt, its thread finishes what it compiles.
    """
    pool = concurrent.futures.ThreadPoolExecutor(2 if jax.default_backend() == "cpu" else 1, "jaxcnn-compile")
    ended = False
    try:
        yield pool
        ended = True
    finally:
        pool.shutdown(wait=ended, cancel_futures=not ended)
