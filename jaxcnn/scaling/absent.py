"""Simulates machines that are not available: a process per network compiles, then the model predicts."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jaxcnn.config as configs
from jaxcnn.config import Config
from jaxcnn.scaling import children, machines
from jaxcnn.scaling.machines import Machine

SIMULATOR = "jaxcnn.scaling.simulate"


def simulate(
    machine: Machine,
    wanted: Sequence[Config],
    utilisation: float,
    step_seconds: Sequence[float | None],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Compile and predict for each network.

    Args:
      machine: the machine to compile for.
      wanted: configs of the networks; their batch is that of one device.
      utilisation: see `predict.predict`.
      step_seconds: seconds of a step measured on one device, for each network, or None.
      say: called with a text for each compiled network.

    Returns:
      `machine`, `networks` and the `environment` of the compiler.

    Raises:
      UserError: the config cannot run on such a machine.
    """
    from jaxcnn.scaling.predict import predict

    compiler = machines.compiler_for(machine)
    networks, environment = [], {}
    for own, seconds in zip(wanted, step_seconds, strict=True):
        model = own.model.name
        task = {"config": configs.to_dict(own), "machine": str(machine)}
        say(f"jaxcnn: compiling {model} for {machine} ({compiler.target} compiler)")
        compiled = children.run_all(SIMULATOR, [task], [machines.environment(machine, compiler)])[0]
        environment = compiled.pop("environment")
        networks.append(
            {"title": title(own), "model": model, "batch_per_device": own.global_batch_size}
            | compiled
            | {"prediction": predict(machine, compiled, own, utilisation, seconds)}
        )
    about = {
        "name": str(machine),
        "devices": machine.devices,
        "compiler": compiler.target,
        "remark": compiler.remark,
        "links": machine.links.source,
    }
    return {"machine": about, "networks": networks, "environment": environment}


def title(config: Config) -> str:
    """The name of a network, with the parts of its config that affect scaling."""
    told: list[str] = [config.model.name, config.model.dtype]
    told += [f"width {config.model.width:g}"] * (config.model.width != 1)
    if config.norm.group_size:
        told.append(f"BatchNorm groups of {config.norm.group_size}")
    parallel, usual = dataclasses.asdict(config.parallel), dataclasses.asdict(configs.Parallel())
    told += [f"{key}={value}" for key, value in parallel.items() if value != usual[key]]
    return ", ".join(told)
