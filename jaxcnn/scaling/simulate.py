"""Compiles the real training step for a machine that is not available: its collectives, memory and FLOPs.

Runs in a separate process (`children.run_all`) with the environment from `machines.environment`.
"""

import dataclasses
from typing import Any

import jax

import jaxcnn.config as configs
from jaxcnn.config import Config, Data
from jaxcnn.data.source import open_splits
from jaxcnn.learn import programs, sharded
from jaxcnn.learn.state import count_parameters
from jaxcnn.learn.step_spec import StepSpec, spec_without_data
from jaxcnn.machine.mesh import check_batch, data_devices
from jaxcnn.scaling import children, machines, replay
from jaxcnn.scaling.stopwatch import memory_of, mesh_over
from jaxcnn.train import environment, flops

KNOWN = {"tfds:cifar10": ((32, 32, 3), 10, 50000), "tfds:cifar100": ((32, 32, 3), 100, 50000)}


def compile_step(task: dict[str, Any]) -> dict[str, Any]:
    """Compile the step of a config for a machine.

    Args:
      task: `config` (a dictionary; its `global_batch_size` is that of one device), `machine` (as in `--simulate`).

    Returns:
      Figures of the compiled program: `collectives`, `memory`, and the parameters and FLOPs of one device.
    """
    machine = machines.parse(task["machine"])
    compiler = machines.compiler_for(machine)
    config = configs.from_config_dict(task["config"])
    per_device = config.global_batch_size
    facts = data_facts(config.data)
    alone = _program(config, facts)
    mesh = mesh_over(machines.devices(machine, compiler), machine.devices, config.parallel.model_devices)
    whole = dataclasses.replace(config, global_batch_size=per_device * data_devices(mesh))
    check_batch(whole, data_devices(mesh))
    spec = _program(whole, facts)
    compiled = programs.train_step(spec, mesh, "stream")
    one = mesh_over(jax.devices(), 1)
    return {
        "parameters": count_parameters(sharded.abstract_state(alone, one).params),
        "flops_per_device": flops.step_flops(programs.train_step.traced(alone, one, "stream")),
        "collectives": [dataclasses.asdict(each) for each in replay.collectives_of(compiled)],
        "memory": memory_of(compiled),
        "environment": environment.facts([]),
    }


def data_facts(data: Data) -> tuple[tuple[int, int, int], int, int]:
    """Image shape, number of classes and of training examples of a set; CIFAR need not be present."""
    if data.source in KNOWN:
        return KNOWN[data.source]
    splits = open_splits(data)
    return splits.train.image_shape, len(splits.class_names), len(splits.train)


def _program(config: Config, facts: tuple[tuple[int, int, int], int, int]) -> StepSpec:
    shape, classes, examples = facts
    # The length of the run does not change the step, and with a large batch it could exceed the example order's limit.
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, steps=1000))
    return spec_without_data(config, shape, config.model.num_classes or classes, examples)


if __name__ == "__main__":
    children.serve(compile_step)
