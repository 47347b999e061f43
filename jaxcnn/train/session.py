"""One start of a run, up to its first step: data, devices, programs, and the state made or restored."""

import concurrent.futures
import dataclasses
import pathlib
import time
from typing import Any

import jax
import numpy as np

from jaxcnn import models
from jaxcnn.config import Config, ConfigError
from jaxcnn.data import cache_limit
from jaxcnn.data.batch import Split
from jaxcnn.data.source import Splits
from jaxcnn.learn import layout, sharded
from jaxcnn.learn.program import Program, make_program
from jaxcnn.learn.state import State, count_parameters, make_hyper
from jaxcnn.learn.step import Normalization, check_sides
from jaxcnn.machine import malloc
from jaxcnn.machine import mesh as meshes
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.text import counted
from jaxcnn.train import environment, feed, limits, normalization, origin, patience, summary, workdir
from jaxcnn.train.checkpoint import Checkpoints
from jaxcnn.train.hooks import Hooks
from jaxcnn.train.interrupts import Interrupts
from jaxcnn.train.logbook import Logbook
from jaxcnn.train.pace import choose_steps_per_call

CLASSES_TOLD = 20  # names of classes that a run tells before it trains
UNEVEN = 1.5  # as many times more examples of one class than of another are told


@dataclasses.dataclass
class Progress:
    """What a run knows beside its state; it is kept in every checkpoint, so a resumed run goes on as if never stopped.

    Attributes:
      window: sums of loss, top-1, top-5 and count over the steps since the last training record.
      window_seconds: of training, since then.
      last_loss: of the last step read, and finite.
      evaluated, accuracy: the last step that was evaluated, and what came out.
      best_accuracy, best_step: on the validation split.
      exchanged: the last step at which the state was taken from another member of a population.
      log_bytes, log_crc32: length of `metrics.jsonl`, and CRC-32 of so many bytes; None in records of older versions.
      images, train_seconds, eval_seconds, compile_seconds, wall_seconds: in all starts together.
      starts: how often the run was started.
    """

    window: list[float] = dataclasses.field(default_factory=lambda: [0.0] * 4)
    window_seconds: float = 0.0
    last_loss: float | None = None
    evaluated: int = 0
    accuracy: float = 0.0
    best_accuracy: float = -1.0
    best_step: int = 0
    exchanged: int = 0
    log_bytes: int = 0
    log_crc32: int | None = 0
    images: int = 0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0
    compile_seconds: float = 0.0
    wall_seconds: float = 0.0
    starts: int = 0


@dataclasses.dataclass
class Session:
    """All that one start of a run holds."""

    config: Config
    folder: pathlib.Path
    started: float
    interrupts: Interrupts
    splits: Splits
    mesh: jax.sharding.Mesh
    program: Program
    feed: feed.Feed
    normalization: Normalization
    logbook: Logbook
    checkpoints: Checkpoints
    progress: Progress
    state: State
    hooks: Hooks
    cluster: Cluster
    steps_per_call: int = 1
    window_started: float = 0.0
    time_to_first_step: float = 0.0
    saved: int = -1

    @property
    def step(self) -> int:
        """The steps that were started."""
        return self.cluster.standing.step

    @step.setter
    def step(self, step: int) -> None:
        self.cluster.standing.step = step


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
    """Data, devices, programs and state, up to the first step.

    Nothing that a later start would be held against is written before all of it has proved possible.
    """
    meshes.prepare_backend()
    mesh = meshes.make_mesh(config.parallel.devices, config.parallel.model_devices)
    meshes.check_batch(config, meshes.data_devices(mesh))
    interrupts.enter("data")
    logbook.say(f"jaxcnn: reading {config.data.source}")
    with cluster.one_per_host_first():
        splits = hooks.shared.splits(config.data)
        splits.fingerprints()  # read once for all processes of a host
    workdir.check_same_data(cluster, splits)
    program = program_on(config, splits)
    if cluster.first:
        workdir.check_data_facts(folder, splits)
    loader, why = feed.choose_loader(config.data, (splits.train, splits.val, splits.test))
    steps_per_call, why_steps = choose_steps_per_call(config.run.steps_per_call, loader, mesh.devices.flat[0].platform)
    feeder = feed.make_feed(loader, program, mesh, config.seed, config.data.workers, hooks.shared)
    cache_limit.keep(meshes.cache_folder())
    interrupts.enter("compile")
    logbook.say(f"jaxcnn: {config.model.name} on {splits.train.description}, {meshes.describe(mesh)}, in {folder}")
    _tell_of_splits(splits, logbook)
    logbook.say(f"  loader {loader} ({why})")
    if steps_per_call > 1:
        logbook.say(f"  up to {steps_per_call} steps in one call ({why_steps})")
    hyper = make_hyper(config)
    if base := config.optim.base_batch_size:
        rate = f"{config.optim.learning_rate:g} x {config.global_batch_size} / {base}"
        logbook.say(f"  learning rate {hyper.learning_rate:g}, which is {rate} (config.optim.base_batch_size)")
    compile_started = time.time()
    limits.check_memory(config, program, mesh, loader, splits)
    key = repr((config.model, config.global_batch_size, splits.train.image_shape, loader, meshes.describe(mesh)))
    kept = sharded.compiled_init_state.is_kept(program, mesh)
    what, before = ("loading", None) if kept else ("compiling", patience.last_time(key))
    with (
        patience.shown(f"{what} {config.model.name}", logbook.console, logbook.say, before=before),
        concurrent.futures.ThreadPoolExecutor(_compilers(), "jaxcnn-compile") as pool,
    ):
        programs = _start_compiling(pool, config, program, mesh, loader, steps_per_call, splits)
        for line in layout.describe(program, mesh, sharded.abstract_state(program, mesh).params):
            logbook.say(f"  {line}")
        normal = normalization.of_split(
            splits.train, config.augment.normalize, folder, meshes.replicated(mesh), hooks.shared.statistics, cluster
        )
        feeder.prepare(splits.train)
        limits.check_compiled(program, mesh, loader, splits, [compiled.result() for compiled in programs])
    state = jax.block_until_ready(sharded.compiled_init_state(program, mesh)(hyper))
    malloc.keep()
    compile_seconds = time.time() - compile_started
    if not kept:
        patience.took(key, compile_seconds)
    hooks.shared.compile_seconds.setdefault(program, compile_seconds)
    logbook.say(
        f"  {count_parameters(state.params):,} parameters, {counted(program.total_steps, 'step')} of "
        f"{program.global_batch_size}; compiled in {compile_seconds:.1f} s"
    )

    if cluster.first:
        origin.check(folder, config, workdir.data_facts(splits), normal)
    checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint, cluster=cluster)
    restored, remarks = checkpoints.newest_sound(state, sharded.state_shardings(program, mesh), set_aside=True)
    for remark in remarks:
        logbook.say(f"jaxcnn: {remark}")
    progress = Progress()
    if restored is not None:
        state, progress = restored.state, Progress(**{"log_crc32": None} | restored.record["progress"])
        _check_best(config, checkpoints, progress)
        logbook.say(f"jaxcnn: resumed from the checkpoint of step {int(state.step)}")
        if (before := restored.record.get("devices")) not in (None, meshes.describe(mesh)):
            logbook.say(f"  it was made on {before}; from here on {meshes.describe(mesh)}: only the rounding changes")
    else:
        state = initialize_from_data(state, splits, normal)
    progress.starts += 1
    progress.compile_seconds += compile_seconds
    remarks = logbook.open(progress.log_bytes, int(state.step), crc32=progress.log_crc32, resumes=restored is not None)
    for remark in remarks:
        logbook.say(f"jaxcnn: {remark}")
    if cluster.first:
        summary.set_aside(folder)
        workdir.write_config(folder, config)
        workdir.write_data_facts(folder, splits)
        environment.write(folder, command, cluster.hosts)
    cluster.standing.step = int(state.step)
    return Session(
        config=config,
        folder=folder,
        started=started,
        interrupts=interrupts,
        splits=splits,
        mesh=mesh,
        program=program,
        feed=feeder,
        normalization=normal,
        logbook=logbook,
        checkpoints=checkpoints,
        progress=progress,
        state=state,
        hooks=hooks,
        cluster=cluster,
        steps_per_call=steps_per_call,
        saved=int(state.step) if restored is not None else -1,
    )


def _check_best(config: Config, checkpoints: Checkpoints, progress: Progress) -> None:
    """Refuse to train to the end where the checkpoint that the test wants is lost already."""
    best = progress.best_step
    if config.run.test_with == "best" and best and best not in checkpoints.steps():
        raise ConfigError(
            f"config.run.test_with='best', but the best checkpoint so far, of step {best}, is not in "
            f"{checkpoints.folder}; bring it back, or go on with --config.run.test_with=last"
        )


def program_on(config: Config, splits: Splits) -> Program:
    """The program for these splits. Raises ConfigError where they do not fit the config."""
    num_classes, examples = len(splits.class_names), len(splits.train)
    if config.model.num_classes not in (0, num_classes):
        raise ConfigError(
            f"config.model.num_classes={config.model.num_classes}, but {splits.train.description} has {num_classes} "
            "classes; set it to 0 to follow the data"
        )
    if examples < config.global_batch_size:
        raise ConfigError(
            f"{splits.train.description} has {counted(examples, 'example')}, fewer than one batch of "
            f"config.global_batch_size={config.global_batch_size}; lower it"
        )
    shape = splits.train.image_shape
    program = make_program(config, num_classes=num_classes, image_shape=shape, train_examples=examples)
    check_sides(program)
    limits.check_program(config, program)
    return program


def _tell_of_splits(splits: Splits, logbook: Logbook) -> None:
    for note in (*splits.notes, *splits.leaks()):
        logbook.say(f"  {note}")
    for split in (splits.train, splits.val, splits.test):
        if split is not None:
            logbook.say(
                f"  {split.name}: {counted(len(split), 'example')} of "
                f"{counted(len(splits.class_names), 'class', 'classes')}, {split.description}"
            )
    logbook.say(f"  classes: {describe_classes(splits.train)}")
    if splits.val is None:
        logbook.say("  protocol=full: trains on the whole training split; nothing is held out for validation")


def describe_classes(split: Split) -> str:
    """The names of the classes, the first ones of many, with their examples in the split where those differ much."""
    counts = np.bincount(split.labels, minlength=len(split.class_names))
    names = [name if name.isprintable() else repr(name) for name in split.class_names]
    few, many = int(counts.argmin()), int(counts.argmax())
    uneven = counts[many] > UNEVEN * counts[few]
    if len(names) <= CLASSES_TOLD:
        return ", ".join(f"{name} {count}" if uneven else name for name, count in zip(names, counts, strict=True))
    text = f"{', '.join(names[:CLASSES_TOLD])} and {len(names) - CLASSES_TOLD} more"
    return text + (f", of {counts[few]} ({names[few]}) to {counts[many]} ({names[many]}) examples" if uneven else "")


def initialize_from_data(state: State, splits: Splits, normal: Normalization) -> State:
    """A new state with the parameters that its network computes from the training split, if there are any."""
    wanted = min(models.examples_for_initialization(state.params), len(splits.train))
    if not wanted:
        return state
    images = splits.train.read(np.arange(wanted))
    mean, std = np.asarray(normal.mean), np.asarray(normal.std)

    def initialize(params: Any) -> Any:
        made = models.initialize_from_data(params, images, mean, std)
        return jax.tree.map(lambda new, old: meshes.put(new, old.sharding), made, params)

    # Each has arrays of its own, since a donated state must not hold one buffer twice.
    ema = state.ema and {**state.ema, "params": initialize(state.ema["params"])}
    return dataclasses.replace(state, params=initialize(state.params), ema=ema)


def _compilers() -> int:
    """How many programs may compile at once; an accelerator's compiler times kernels on the device, so there one."""
    return 2 if jax.default_backend() == "cpu" else 1


def _start_compiling(
    pool: concurrent.futures.Executor,
    config: Config,
    program: Program,
    mesh: jax.sharding.Mesh,
    loader: str,
    steps_per_call: int,
    splits: Splits,
) -> list[concurrent.futures.Future[Any]]:
    """Trace the programs of the run that are not kept; have all compiled, or loaded, in the background.

    `sharded.compiled_…` then has them, so nothing compiles once the run is under way.
    """
    needed: list[tuple[Any, Any, tuple[Any, ...]]] = [
        *(
            (sharded.lowered_train_step, sharded.compiled_train_step, (made, mesh, loader, steps_per_call))
            for _, made in program.stretches
        ),
        (sharded.lowered_init_state, sharded.compiled_init_state, (program, mesh)),
    ]
    batch_size = feed.eval_batch_size(config.run.eval_batch_size, program, mesh)
    evaluated = [split for split in (splits.val, splits.test) if split is not None]
    if evaluated:
        needed.append((sharded.lowered_eval_step, sharded.compiled_eval_step, (program, mesh, batch_size)))
        if config.run.tta != "none" and splits.test is not None:
            views = (program, mesh, batch_size, config.run.tta)
            needed.append((sharded.lowered_tta_views, sharded.compiled_tta_views, views))
            needed.append((sharded.lowered_tta_sums, sharded.compiled_tta_sums, views))
        if program.optim.ema_decay and program.shard_optimizer and not program.shard_params:
            needed.append((sharded.lowered_whole_average, sharded.compiled_whole_average, (program, mesh)))
    if loader == "resident":
        sizes = {len(split) for split in evaluated}
        needed += [
            (sharded.lowered_eval_batch, sharded.compiled_eval_batch, (program, mesh, batch_size, size))
            for size in sorted(sizes)
        ]
    programs = []
    for lower, compiled, arguments in needed:
        if not compiled.is_kept(*arguments):
            lower(*arguments)
        programs.append(pool.submit(compiled, *arguments))
    return programs
