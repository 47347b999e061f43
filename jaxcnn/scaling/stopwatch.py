"""Times one point of a scaling curve: the real step on a mesh, its collectives alone, its input alone.

Runs in a separate process (`children.run_all`), or in each of several processes joined by `jax.distributed`.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

import jaxcnn.config as configs
from jaxcnn.config import UserError
from jaxcnn.data.batch import Constants
from jaxcnn.data.source import open_splits
from jaxcnn.learn import programs, sharded, spread
from jaxcnn.learn.state import make_hyper
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine import malloc
from jaxcnn.machine import mesh as meshes
from jaxcnn.scaling import children, replay
from jaxcnn.train import environment, flops, setup

WARM_UP_STEPS = 2


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Time the training step of a config.

    Args:
      task: `config` (a dictionary), `devices` (of all processes), `processes`, `process`, `coordinator` (an address,
        for several processes), `cores` (to run on; empty: all), `seconds` (of each measurement), `rounds`.

    Returns:
      Seconds per step, as lists with one figure per round: `step_seconds`, `communication_seconds`, `input_seconds`;
      also properties of the measured step (`collectives`, `flops`, `memory`, `loader`, `environment`).

    Raises:
      UserError: the config cannot run on this number of devices.
    """
    if task["cores"]:
        os.sched_setaffinity(0, task["cores"])
    if task["processes"] > 1:
        jax.distributed.initialize(task["coordinator"], task["processes"], task["process"])
    config = configs.from_config_dict(task["config"])
    meshes.prepare_backend()
    mesh = mesh_over(jax.devices(), task["devices"], config.parallel.model_devices)
    splits = open_splits(config.data, config.task)
    found_setup = setup.on(config, splits, mesh)
    spec, kind = found_setup.spec, found_setup.loader
    if kind == "stream" and task["processes"] > 1:
        raise UserError("over processes the resident loader is measured; set config.data.loader='resident'")
    loader = found_setup.make_loader()
    compiled = programs.train_step(spec, mesh, kind)
    channels = np.full(spec.image_shape[-1], 0.5, np.float32)
    constants = found_setup.constants(Constants(channels, channels))
    runner = _Runner(compiled, sharded.init_state(spec, mesh)(make_hyper(config)), constants)
    found = replay.collectives_of(compiled)
    communicate = replay.program(found, mesh)
    malloc.keep()  # as in training after compilation
    rounds = task["rounds"]
    with loader.train_inputs(splits.train, 0) as inputs:
        first = next(inputs)
        gather = _input_alone(spec, mesh, first) if kind == "resident" else None
        clock = _Clock(task["seconds"] / rounds)
        timed: dict[str, list[float]] = {"step_seconds": [], "communication_seconds": [], "input_seconds": []}
        for _ in range(rounds):
            step = clock.per_call("step", lambda: runner.step(next(inputs)), runner.wait)
            timed["step_seconds"].append(step)
            timed["communication_seconds"].append(clock.per_call("communication", communicate) if found else 0.0)
            if gather is not None:
                timed["input_seconds"].append(clock.per_call("input", gather))
            else:
                fed = clock.per_call("fed", lambda: runner.step(first), runner.wait)
                timed["input_seconds"].append(max(0.0, step - fed))
    return timed | {
        "loader": kind,
        "collectives": [dataclasses.asdict(each) for each in found],
        "flops_per_device": flops.of_program(spec, mesh, kind),
        "memory": memory_of(compiled),
        "environment": environment.facts([]),
    }


def mesh_over(devices: list[Any], count: int, model_devices: int = 1) -> Mesh:
    """A mesh of axes (`data`, `model`) over the first `count` devices, of several processes or simulated ones, too.

    Raises:
      UserError: fewer devices exist, or `model_devices` does not divide `count`.
    """
    if count > len(devices):
        raise UserError(f"--devices={count}, but there are {len(devices)} ({devices[0].device_kind})")
    if count % model_devices:
        raise UserError(f"config.parallel.model_devices={model_devices} does not divide {count} devices")
    return meshes.over(devices[:count], model_devices)


def memory_of(compiled: jax.stages.Compiled) -> dict[str, int] | None:
    """Bytes of one device's memory that a program needs, according to the compiler; None if it does not say."""
    analysis: Any = compiled.memory_analysis()
    if analysis is None:
        return None
    names = {"arguments": "argument", "outputs": "output", "temporaries": "temp", "aliased": "alias"}
    parts = {name: int(getattr(analysis, f"{key}_size_in_bytes")) for name, key in names.items()}
    # Donated arrays are counted both as argument and as result.
    return parts | {"total": parts["arguments"] + parts["outputs"] + parts["temporaries"] - parts["aliased"]}


class _Runner:
    """The compiled step with its state, which each call donates."""

    def __init__(self, compiled: Any, state: Any, constants: Constants) -> None:
        self._compiled, self.state, self._constants = compiled, state, constants
        self._metrics: Any = None

    def step(self, inputs: Any) -> None:
        before = self._metrics
        self.state, self._metrics = self._compiled(self.state, inputs, self._constants)
        if before is not None:  # as in the trainer, which reads the metrics of the previous step
            jax.block_until_ready(before)

    def wait(self) -> None:
        jax.block_until_ready((self.state, self._metrics))


class _Clock:
    """Times calls for about `seconds` seconds; all processes agree on the number of calls."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._counts: dict[str, int] = {}

    def per_call(self, name: str, call: Callable[[], Any], wait: Callable[[], Any] | None = None) -> float:
        """Seconds per call, averaged over a round. `wait` waits for the last call; by default, for its result."""
        if name not in self._counts:
            self._run(WARM_UP_STEPS, call, wait)
            once = self._run(1, call, wait)
            self._counts[name] = _agreed(max(1, round(self._seconds / max(once, 1e-6))))
        count = self._counts[name]
        return self._run(count, call, wait) / count

    @staticmethod
    def _run(count: int, call: Callable[[], Any], wait: Callable[[], Any] | None) -> float:
        started = time.perf_counter()
        result = None
        for _ in range(count):
            result = call()
        if wait is None:
            jax.block_until_ready(result)
        else:
            wait()
        return time.perf_counter() - started


def _agreed(count: int) -> int:
    """The `count` of process 0."""
    if jax.process_count() == 1:
        return count
    return int(multihost_utils.broadcast_one_to_all(np.int32(count)))


def _input_alone(spec: StepSpec, mesh: Mesh, split: Any) -> Callable[[], Any]:
    """The resident loader's part of the step as a separate program: order and gather."""
    local = functools.partial(spread.resident_batch, spec, meshes.data_devices(mesh))
    mapped = jax.shard_map(local, mesh=mesh, in_specs=jax.P(), out_specs=jax.P(meshes.DATA_AXIS), check_vma=False)
    gather = jax.jit(mapped)
    return lambda: jax.block_until_ready(gather(np.uint32(0), np.int32(0), split))


if __name__ == "__main__":
    children.serve(measure)
