"""Small data and networks for several tests: synthetic images, thin networks."""

import contextlib
import dataclasses
import os

import jax
import numpy as np

from jaxcnn import config as configs
from jaxcnn.data import resident
from jaxcnn.data.batch import Constants
from jaxcnn.learn import compilation, executables, population, programs, sharded
from jaxcnn.learn.state import make_hyper
from jaxcnn.learn.step_spec import StepSpec, make_spec
from jaxcnn.machine import mesh as meshes
from jaxcnn.tasks import by_name
from tests import runs

EXAMPLES = 48
# Thin networks take longer to compile than to train. Tests that compare up to rounding can skip LLVM's optimisation;
# operations and memory stay as they are.
UNOPTIMISED = {"xla_backend_optimization_level": 0}
_unoptimised: list[bool] = []  # one element in `unoptimised`
_of_marked = contextlib.ExitStack()


def config(**groups) -> configs.Config:
    """A checked config: `config(model={"name": "cnn"}, global_batch_size=16)`."""
    tree = configs.to_dict(configs.Config(global_batch_size=16))
    tree["model"] |= {"name": "cnn", "width": 0.25}
    for name, value in groups.items():
        tree[name] = tree[name] | value if isinstance(value, dict) else value
    return configs.from_config_dict(tree)


def split(
    examples: int = EXAMPLES, side: int = 8, channels: int = 3, classes: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, side, side, channels] of class-dependent brightness, labels int32 [N]."""
    generator = np.random.default_rng(0)
    labels = generator.integers(classes, size=examples).astype(np.int32)
    noise = generator.integers(0, 120, (examples, side, side, channels))
    return (noise + 30 * labels[:, None, None, None]).astype(np.uint8), labels


def spec_of(config: configs.Config, steps: int = 6, side: int = 8, examples: int = EXAMPLES) -> StepSpec:
    """The spec of a config for the images of `split`."""
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=steps))
    return make_spec(config, task=by_name.make(config.task, 4), image_shape=(side, side, 3), train_examples=examples)


def constants(mesh) -> Constants:
    """Mean 0.5 and standard deviation 0.25 for each channel."""
    half, quarter = np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)
    return jax.device_put(Constants(half, quarter), meshes.replicated(mesh))


def unoptimised_step_program(spec: StepSpec, mesh, loader: str = "resident") -> jax.stages.Traced:
    """`programs.train_step`."""
    return programs.train_step.traced(spec, mesh, loader)


unoptimised_step = executables.Program(unoptimised_step_program, UNOPTIMISED)  # compiled quickly


@contextlib.contextmanager
def programs_kept():
    """Take programs from an earlier `make test` without tracing them; not where code of theirs is replaced."""
    meshes.prepare_backend()
    before = executables.kept()
    executables.keep()
    try:
        yield
    finally:
        executables.keep(before)


@contextlib.contextmanager
def unoptimised():
    """Compile the networks' programs, here and in commands, without optimising their code: up to five times as fast.

    For tests that hold a program against itself, or up to rounding. Not for equal bits of two programs, nor for speed:
    these are promised of optimised programs, in which the compiler contracts and vectorises each in its own way.
    """
    if _unoptimised:
        yield
        return
    options, flags = compilation._compiler_options, os.environ.get("XLA_FLAGS")
    meshes.prepare_backend()
    options("cpu")  # compiles, upon which XLA has read the flags for this process
    compilation._compiler_options = lambda platform: (options(platform) or {}) | UNOPTIMISED
    os.environ["XLA_FLAGS"] = runs.UNOPTIMISED["XLA_FLAGS"]  # for commands, and part of the key of kept programs
    _forget()
    _unoptimised.append(True)
    try:
        yield
    finally:
        _unoptimised.pop()
        compilation._compiler_options = options
        os.environ.pop("XLA_FLAGS")
        if flags is not None:
            os.environ["XLA_FLAGS"] = flags
        _forget()


def optimise(wanted: bool) -> None:
    """Enter or leave `unoptimised`, unless it is so already: tests that are marked and follow one another share it."""
    if wanted:
        _of_marked.close()
    elif not _unoptimised:
        _of_marked.enter_context(unoptimised())


def _forget() -> None:
    """Let go of the networks' programs, of which each would keep the options it was made with."""
    for program in executables._programs:
        program.forget()
    for module in (sharded, population):
        for function in vars(module).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()


def initial_state(spec: StepSpec, mesh, config: configs.Config):
    """A new state, drawn on one device; `test_parallel` shows that it is the same on any."""
    whole = dataclasses.replace(spec, shard_optimizer=False, shard_params=False)
    with programs_kept():
        state = programs.init_state(whole, meshes.make_mesh(1))(make_hyper(config))
        return jax.device_put(state, sharded.state_shardings(spec, mesh))


def train(config: configs.Config, devices: int = 1, steps: int = 6, side: int = 8, optimised: bool = True):
    """Losses of every step [steps], and the last state, of a resident run."""
    mesh = meshes.make_mesh(devices, config.parallel.model_devices)
    spec = spec_of(config, steps, side)
    image, label = split(side=side)
    data = jax.device_put(resident.Resident(image, label), meshes.replicated(mesh))
    state = initial_state(spec, mesh, config)
    with programs_kept():
        step = programs.train_step(spec, mesh, "resident") if optimised else unoptimised_step(spec, mesh)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, data, constants(mesh))
        losses.append(float(metrics.sums["loss"]) / float(metrics.sums["count"]))
    return np.array(losses), jax.device_get(state)
