"""The count of floating-point operations, and the peaks they are held against."""

import types

import jax
import numpy as np
import pytest

from jaxcnn.learn import programs, sharded
from jaxcnn.learn.state import count_parameters
from jaxcnn.machine import mesh as meshes
from jaxcnn.train import flops
from tests import small

pytestmark = pytest.mark.usefixtures("kept_programs")


def plugin_mesh(devices):
    """All that is asked of a mesh of GPUs, which are not here."""
    return types.SimpleNamespace(devices=np.full((devices, 1), types.SimpleNamespace(platform="cuda")), size=devices)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("devices", [1, 4])
def test_the_count_is_that_of_the_convolutions(devices, platform):
    config = small.config(model={"name": "cnn", "width": 1.0})
    spec = small.spec_of(config, side=8)
    mesh = meshes.make_mesh(devices) if platform == "cpu" else plugin_mesh(devices)
    counted = flops.of_program(spec, mesh, "stream")
    # Multiply-adds forward: 3 -> 32 and 32 -> 64 channels on 8x8 pixels, 64 -> 64 on 4x4, each under a 3x3 kernel; two
    # operations each; the gradients of inputs and weights cost as much again, but the first layer needs no input's.
    first, second, third = 64 * 9 * 3 * 32, 64 * 9 * 32 * 64, 16 * 9 * 64 * 64
    expected = 16 / devices * 2 * (2 * first + 3 * (second + third))
    # Zero padding at the borders is not computed (less), BatchNorm and the optimiser are not in the sum (more).
    assert counted == pytest.approx(expected, rel=0.2)


def test_every_microbatch_counts_wherever_the_step_runs(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    norm, mesh = {"group_size": 4}, plugin_mesh(1)
    whole, parts = (
        small.spec_of(small.config(norm=norm, optim={"accumulate_steps": count}), side=8) for count in (1, 4)
    )
    counted = flops.of_program(parts, mesh, "stream")
    assert counted == pytest.approx(flops.of_program(whole, mesh, "stream"), rel=0.1)
    # Its bytes are counted in the compiled program, which loops over microbatches there.
    assert flops.bytes_of_program(parts, mesh, "stream") is None


def test_the_device_is_found_by_its_name():
    for kind, name in {
        "NVIDIA H200": "H200",
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA H100 PCIe": "H100 PCIe",
        "NVIDIA A100-SXM4-40GB": "A100",
        "NVIDIA A100-SXM4-80GB": "A100-SXM4-80GB",
        "NVIDIA A100 80GB PCIe": "A100 80GB PCIe",
        "Tesla V100-SXM2-16GB": "V100",
        "Tesla T4": "T4",
        "NVIDIA L4": "L4",
        "TPU v5 lite": "TPU v5 lite",
        "TPU v5": "TPU v5",
        "TPU v5p": "TPU v5p",
        "NVIDIA H100 NVL": "H100 NVL",
    }.items():
        assert flops.peak(kind) is flops.PEAKS[name], kind
    assert flops.peak("cpu") is None
    assert flops.peak("NVIDIA L40S") is None


def test_shares_are_of_the_peak_at_the_dtype_of_the_run():
    single, half = small.config(), small.config(model={"dtype": "bfloat16"})
    figures = flops.utilisation(half, "NVIDIA H200", 10.0, 9.89e12, 2.4e11)
    assert figures == {
        "flops_per_second_per_device": 9.89e13,
        "model_flops_utilisation": pytest.approx(0.1),
        "bytes_per_second_per_device": 2.4e12,
        "bandwidth_utilisation": pytest.approx(0.5),
    }
    assert flops.utilisation(single, "NVIDIA H200", 10.0, 4.94e12, None) == {
        "flops_per_second_per_device": 4.94e13,
        "model_flops_utilisation": pytest.approx(0.1),
        "bytes_per_second_per_device": None,
        "bandwidth_utilisation": None,
    }
    unknown = flops.utilisation(single, "cpu", 2.0, 3.0, 4.0)
    assert (unknown["flops_per_second_per_device"], unknown["bytes_per_second_per_device"]) == (6.0, 8.0)
    assert unknown["model_flops_utilisation"] is None
    assert unknown["bandwidth_utilisation"] is None


def test_the_bytes_of_a_step_are_at_least_those_of_its_state():
    config = small.config(model={"name": "cnn", "width": 1.0})
    spec, mesh = small.spec_of(config, side=8), meshes.make_mesh(1)
    moved = flops.step_bytes(programs.train_step(spec, mesh, "stream"))
    # Parameters and momentum are read and written.
    assert moved > 4 * 4 * count_parameters(sharded.abstract_state(spec, mesh).params)
