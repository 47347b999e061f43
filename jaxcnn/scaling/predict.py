"""Predicts the time of a compiled step from its contents, by the bandwidth model and a cost of computation."""

import math
from typing import Any

from jaxcnn.config import Config
from jaxcnn.scaling.bandwidth import Links, collective_seconds
from jaxcnn.scaling.machines import Machine
from jaxcnn.train import flops

# NVIDIA's 2470 images/s of ResNet50 v1.5 on one A100 in mixed precision (`published.FIGURES`), at 3 x 8.2 GFLOP per
# image of 224x224 pixels, are 61 TFLOP/s of its 312.
UTILISATION = 0.2
HIDDEN_SHARE = 2 / 3  # share of the backward pass, which may hide gradients, in compute time
HIDEABLE_BYTES = 2**20  # smaller collectives belong to BatchNorm; the next layer waits for their result
# These carry gradients. Parameters are gathered before the step (FSDP) or after its update (ZeRO-1), when no backward
# pass runs.
HIDEABLE_KINDS = ("all-reduce", "reduce-scatter")


def predict(
    machine: Machine, compiled: dict[str, Any], config: Config, utilisation: float, step_seconds: float | None
) -> dict[str, Any]:
    """Times and efficiencies under weak scaling, from the result of `compile_step` and the bandwidth model.

    Args:
      machine: the machine for which the step was compiled.
      compiled: result of `compile_step`.
      config: its `global_batch_size` is that of one device.
      utilisation: assumed share of the device's peak FLOP/s that computation reaches.
      step_seconds: seconds of a step on one device alone, if measured; replaces `utilisation`.

    Returns:
      `compute_seconds` and its origin; `curve`: for 1, 2, 4, … devices, communication that the step waits for without
      and with overlap, and efficiency (both are pairs: nothing hidden; everything hidden that could be).
    """
    peak = flops.peak(machine.device_kind)
    basis = "measured on one device"
    compute = step_seconds
    if compute is None and peak is not None and compiled["flops_per_device"]:
        most = peak.single if config.model.dtype == "float32" else peak.half
        compute = compiled["flops_per_device"] / (most * utilisation)
        basis = f"assumed: {utilisation:.0%} of {most / 1e12:.0f} TFLOP/s"
    if compute is None:
        return {"compute_seconds": None, "compute_basis": "no peak is known", "curve": []}
    counts = [2**i for i in range(int(math.log2(machine.devices)) + 1)]
    if counts[-1] != machine.devices:
        counts.append(machine.devices)
    curve = []
    for count in counts:
        blocking, hideable = communication(machine, compiled["collectives"], count)
        exposed = blocking + hideable, blocking + max(0.0, hideable - HIDDEN_SHARE * compute)
        curve.append(
            {
                "devices": count,
                "communication_seconds": exposed[0],
                "communication_seconds_overlapped": exposed[1],
                "efficiency": compute / (compute + exposed[0]),
                "efficiency_overlapped": compute / (compute + exposed[1]),
                "images_per_second": count * config.global_batch_size / (compute + exposed[0]),
            }
        )
    return {
        "compute_seconds": compute,
        "compute_basis": basis,
        "curve": curve,
        # Nine tenths of the step must be computation, which grows with the batch; communication does not grow.
        "batch_for_90_percent": math.ceil(config.global_batch_size * 9 * curve[-1]["communication_seconds"] / compute),
    }


def communication(machine: Machine, collectives: list[dict[str, Any]], devices: int) -> tuple[float, float]:
    """Seconds of the collectives that cannot be hidden, and of those that the backward pass may hide.

    Large sums can be hidden: they are gradients. The step waits for small sums and for gathers.

    Collectives over all devices are assumed to be over `devices` devices; the groups of others keep their size.
    """
    links = machine.links
    totals = [0.0, 0.0]
    for each in collectives:
        whole = each["group_size"] in (0, machine.devices)
        size = devices if whole else min(each["group_size"], devices)
        nodes, shape = 1, tuple[int, ...]()
        if isinstance(links, Links):
            first = range(size) if whole else each["replica_groups"][0]
            nodes = min(size, len({number // links.node for number in first}))
        elif machine.grid and size == machine.devices:
            shape = machine.grid
        elif machine.grid and size == devices:
            shape = _part(machine.grid, devices)
        seconds = collective_seconds(links, each["kind"], each["bytes"], size, nodes, shape)
        totals[each["kind"] in HIDEABLE_KINDS and each["bytes"] >= HIDEABLE_BYTES] += seconds
    return totals[0], totals[1]


def _part(grid: tuple[int, ...], devices: int) -> tuple[int, ...]:
    """A grid of `devices` devices inside `grid`, as square as halving its sides allows."""
    sides = [1] * len(grid)
    while math.prod(sides) < devices:
        growing = [i for i, side in enumerate(sides) if 2 * side <= grid[i]]
        if not growing:
            break
        sides[min(growing, key=lambda i: sides[i])] *= 2
    return tuple(sides)
