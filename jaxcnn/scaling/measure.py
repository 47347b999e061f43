"""Measures scaling on the available devices: the points, each in separate processes, and the resulting rows."""

import dataclasses
import os
import socket
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jaxcnn.config as configs
from jaxcnn.config import Config, UserError
from jaxcnn.scaling import children
from jaxcnn.text import counted

STOPWATCH = "jaxcnn.scaling.stopwatch"
PROBE = "jaxcnn.scaling.probe"
MODES = ("strong", "weak")


@dataclasses.dataclass(frozen=True)
class Point:
    """A measurement: a config (with the batch of this point), and the numbers of devices and processes."""

    config: Config
    devices: int
    processes: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """The measurements to make.

    Attributes:
      networks: configs; their batch is the global one under strong scaling, that of one device under weak scaling.
      modes: some of `MODES`.
      devices: counts of devices within one process.
      processes: counts of processes, each with one device.
      seconds: duration of each of the three measurements of a point.
      rounds: number of rounds into which they are split.
    """

    networks: Sequence[Config]
    modes: Sequence[str]
    devices: Sequence[int]
    processes: Sequence[int]
    seconds: float
    rounds: int


def probe() -> dict[str, Any]:
    """JAX's view of this machine: `backend`, `device_kind`, `devices` and `cores` (a list)."""
    return children.run_all(PROBE, [{}], [{}])[0]


def run(plan: Plan, machine: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Measure all points of a plan.

    Args:
      plan: what to measure.
      machine: from `probe`.
      say: called with a text after each point.

    Returns:
      `rows` and the `environment` of the first point.

    Raises:
      UserError: the batch is not divisible, or fewer devices exist than requested.
    """
    check(plan, machine)
    done: dict[tuple[Point, str], dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for config in plan.networks:
        for mode in plan.modes:
            for over, counts in (("devices", plan.devices), ("processes", plan.processes)):
                series = []
                for count in counts:
                    point = _point(config, mode, over, count)
                    key = point, over  # one device is equal in both modes; one process has one CPU core
                    if key not in done:
                        done[key] = _timed(point, over, machine, plan.seconds, plan.rounds)
                    series.append(_row(config.model.name, mode, over, point, done[key], machine))
                    say(_told(series[-1]))
                rows += related(series)
    environment = next(iter(done.values()))["environment"] if done else {}
    return {"rows": rows, "environment": environment | {"devices": machine["devices"]}}


def check(plan: Plan, machine: dict[str, Any]) -> None:
    """Refuse, before measuring, a plan that cannot be measured.

    Raises:
      UserError: see `run`.
    """
    most = max((*plan.devices, *plan.processes), default=0)
    if machine["backend"] != "cpu" and most > machine["devices"]:
        raise UserError(f"--devices asks for {most}, but there are {machine['devices']} ({machine['device_kind']})")
    batch = plan.networks[0].global_batch_size
    for count in (*plan.devices, *plan.processes):
        if "strong" in plan.modes and batch % count:
            raise UserError(
                f"config.global_batch_size={batch} cannot be divided equally over {count} devices, as strong scaling "
                "requires; change it, --devices or --processes"
            )


def _point(config: Config, mode: str, over: str, count: int) -> Point:
    batch = config.global_batch_size * (count if mode == "weak" else 1)
    return Point(dataclasses.replace(config, global_batch_size=batch), count, count if over == "processes" else 1)


def _timed(point: Point, over: str, machine: dict[str, Any], seconds: float, rounds: int) -> dict[str, Any]:
    """Measure a point in separate processes; return the figures of process 0."""
    shared = {
        "config": configs.to_dict(point.config),
        "devices": point.devices,
        "processes": point.processes,
        "coordinator": f"127.0.0.1:{_free_port()}",
        "seconds": seconds,
        "rounds": rounds,
    }
    tasks, environments = [], []
    for process in range(point.processes):
        cores = [machine["cores"][process % len(machine["cores"])]] if over == "processes" and _on_cpu(machine) else []
        tasks.append(shared | {"process": process, "cores": cores})
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3"}
        if _on_cpu(machine):
            environment |= {"JAX_NUM_CPU_DEVICES": str(point.devices // point.processes), "JAX_PLATFORMS": "cpu"}
        elif point.processes > 1:
            visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            environment["CUDA_VISIBLE_DEVICES"] = visible[process] if visible else str(process)
        environments.append(environment)
    return children.run_all(STOPWATCH, tasks, environments)[0]


def _row(
    model: str, mode: str, over: str, point: Point, timed: dict[str, Any], machine: dict[str, Any]
) -> dict[str, Any]:
    """A row of the report, without the figures relative to others of its series."""
    middle = {
        name: statistics.median(timed[name]) for name in ("step_seconds", "communication_seconds", "input_seconds")
    }
    batch = point.config.global_batch_size
    step = middle["step_seconds"]
    # Communication that overlaps computation costs the step less than it takes alone.
    communication = min(middle["communication_seconds"], max(0.0, step - middle["input_seconds"]))
    cores = len(machine["cores"])
    return {
        "model": model,
        "mode": mode,
        "over": over,
        "devices": point.devices,
        "processes": point.processes,
        "global_batch_size": batch,
        "images_per_second": batch / step,
        "images_per_second_range": [batch / max(timed["step_seconds"]), batch / min(timed["step_seconds"])],
        "step_seconds": step,
        "compute_seconds": max(0.0, step - communication - middle["input_seconds"]),
        "communication_seconds": communication,
        "communication_alone_seconds": middle["communication_seconds"],
        "input_seconds": middle["input_seconds"],
        "loader": timed["loader"],
        "shares_cores": _on_cpu(machine) and (point.devices > 1 if over == "devices" else point.devices > cores),
        "collectives": timed["collectives"],
        "flops_per_device": timed["flops_per_device"],
        "memory": timed["memory"],
        "rounds": {name: timed[name] for name in middle},
    }


def related(series: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of one curve with `speedup` and `efficiency` relative to the row with the fewest devices."""
    base = min(series, key=lambda row: row["devices"], default=None)
    for row in series:
        assert base is not None
        row["speedup"] = row["images_per_second"] / base["images_per_second"]
        row["efficiency"] = row["speedup"] / (row["devices"] / base["devices"])
    return series


def _told(row: dict[str, Any]) -> str:
    where = f"{counted(row['devices'], 'device')} in {counted(row['processes'], 'process', 'processes')}"
    return f"  {row['model']}, {row['mode']} scaling, {where}: {row['images_per_second']:.1f} images/s"


def _on_cpu(machine: dict[str, Any]) -> bool:
    return machine["backend"] == "cpu"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
