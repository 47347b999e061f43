"""Measures the time and memory of a sweep: compiles each of its programs and runs a few steps."""

import concurrent.futures
import contextlib
import multiprocessing
import pathlib
import resource
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

import jax
from rich.console import Console

from jaxcnn.config import ConfigError, UserError
from jaxcnn.data.batch import Constants
from jaxcnn.data.examples import worker_count
from jaxcnn.learn import programs
from jaxcnn.learn.state import make_hyper
from jaxcnn.machine import malloc
from jaxcnn.machine import mesh as meshes
from jaxcnn.study.engines import processes
from jaxcnn.study.plan import Group, Plan
from jaxcnn.train import environment, patience, setup, workdir
from jaxcnn.train.hooks import Shared
from jaxcnn.train.starting import initialize_from_data

STEPS = 3  # timed steps, after one warm-up step
FILE = "plan.json"


def measure(plan: Plan, folder: pathlib.Path, shared: Shared, say: Any) -> dict[str, Any]:
    """Seconds and bytes of every program of a plan, by its key; kept in `plan.json`, so none is measured twice.

    Later, the trials load the programs compiled here from memory or from the cache of compiled programs.

    `step_seconds` is the mean over the run, as steps differ if its images grow.

    Returns:
      `{key: {"compile_seconds", "step_seconds", "eval_seconds_per_example", "program_bytes"} | {"error"}}`.
    """
    meshes.prepare_backend()
    where = f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}, {worker_count()} cores"
    path = folder / FILE
    kept = workdir.read_json(path) if path.exists() else {}
    figures = kept.get("programs", {}) if kept.get("device") == where else {}
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for number, group in enumerate(plan.groups, 1):
        if group.key not in figures:
            what = f"measuring program {number} of {len(plan.groups)}"
            say(what)
            try:
                with patience.shown(
                    f"{what}: compiling {group.config.model.name}, and a few steps",
                    console,
                    say,
                    first=patience.LINE_SECONDS,
                ):
                    figures[group.key] = _measure(group, shared)
            except (UserError, RuntimeError) as error:  # such as too little memory: reported with the plan
                figures[group.key] = {"error": " ".join(str(error).split())[:200]}
    if folder.is_dir():
        workdir.write_json(path, {"device": where, "programs": figures})
    return figures


def _measure(group: Group, shared: Shared) -> dict[str, float]:
    config = group.config
    mesh = meshes.make_mesh(config.parallel.devices, config.parallel.model_devices)
    splits = shared.splits(config.data, config.task)
    found = setup.on(config, splits, mesh)
    spec, loader, batch_size = found.spec, found.make_loader(shared), found.eval_batch_size
    began = time.perf_counter()
    steps = [programs.train_step(*arguments) for arguments in found.train_steps]
    state = programs.init_state(spec, mesh)(make_hyper(config))
    evaluated = splits.val or splits.test
    if evaluated is not None:
        programs.eval_step(spec, mesh, batch_size)
    malloc.keep()  # as in training after compilation
    compile_seconds = time.perf_counter() - began
    shared.compile_seconds.setdefault(spec, compile_seconds)
    constants = found.constants(Constants(*shared.statistics(splits.train)))
    state = initialize_from_data(state, splits, constants)
    step_seconds = []
    with loader.train_inputs(splits.train, 0) as inputs:
        for step in steps:
            seconds = []
            for _ in range(1 + STEPS):
                arguments = programs.call_inputs((state, next(inputs), constants), mesh, found.steps_per_call, 1)
                (state, _), took = _timed(step, *arguments)
                seconds.append(took)
            step_seconds.append(min(seconds[1:]))
    figures = {
        "compile_seconds": compile_seconds,
        "step_seconds": spec.mean_step(step_seconds),
        "program_bytes": max(program_bytes(step) for step in steps),
        "eval_seconds_per_example": 0.0,
    }
    if evaluated is not None:
        evaluate = programs.eval_step(spec, mesh, batch_size)
        variables = programs.as_evaluated(spec, mesh, state.variables())
        with loader.eval_batches(evaluated, batch_size) as batches:
            batch = next(batches)
            seconds = [_timed(evaluate, variables, batch, constants)[1] for _ in range(2)]
        figures["eval_seconds_per_example"] = min(seconds) / batch_size
    return figures


def _timed(compiled: jax.stages.Compiled, *arguments: Any) -> tuple[Any, float]:
    """The results, when ready, and the seconds until then."""
    began = time.perf_counter()
    return jax.block_until_ready(compiled(*arguments)), time.perf_counter() - began


def program_bytes(compiled: jax.stages.Compiled) -> float:
    """Peak bytes of a compiled step on one device, according to XLA; 0 if XLA does not say."""
    analysis: Any = compiled.memory_analysis()
    if analysis is None:
        return 0.0
    return float(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def seconds_of(group: Group, figures: dict[str, Any]) -> float | None:
    """Seconds of one trial of a group without compilation; None if its program could not be measured."""
    if "error" in figures:
        return None
    config, spec = group.config, group.spec
    seconds = spec.total_steps * figures["step_seconds"]
    epochs = spec.total_steps / spec.steps_per_epoch
    times = max(1.0, epochs / config.run.eval_every_epochs)
    return seconds + figures["eval_seconds_per_example"] * (times * group.val_examples + group.test_examples)


def peak_bytes() -> int:
    """Peak host memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def facts(command: list[str]) -> dict[str, Any]:
    """Versions, devices and machine of the measuring process; see `environment.facts`."""
    try:
        return environment.facts(command)
    except RuntimeError as error:
        raise ConfigError(f"JAX finds no device ({error})") from error


def here_or_apart(
    plan: Plan, folder: pathlib.Path, shared: Shared, command: list[str], say: Any, *, place: Any, wanted: bool
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """`measure`, `facts` and `peak_bytes`: in this process, or in a separate one at the `place` of a worker.

    A process that only watches workers must not occupy an accelerator or the cores of its workers.
    """
    if place is None:
        return _all(plan, folder, shared, command, say if wanted else None)
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn, processes.settle, (place,)) as pool:
        with _without_script():  # which starts with the first task
            found = pool.submit(_all, plan, folder, Shared(), command, print if wanted else None)
        return found.result()


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """Processes that the body starts do not run the script of the user again, which may have no `__main__` guard."""
    script = sys.modules["__main__"]
    spec = getattr(script, "__spec__", None)
    if spec is not None and spec.name.partition(".")[0] == "jaxcnn":  # a command, whose module only defines
        yield
        return
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _all(plan: Plan, folder: pathlib.Path, shared: Shared, command: list[str], say: Any) -> tuple[Any, Any, int]:
    figures = measure(plan, folder, shared, say) if say else {}
    return figures, facts(command), peak_bytes()
