"""The count of floating-point operations, and the peaks they are held against."""

import pytest

from jaxcnn import mesh as meshes
from jaxcnn.learn import sharded
from jaxcnn.train import flops
from tests import small


@pytest.mark.parametrize("devices", [1, 4])
def test_the_count_is_that_of_the_convolutions(devices):
    config = small.config(model={"name": "cnn", "width": 1.0})
    program, mesh = small.program_of(config, side=8), meshes.make_mesh(devices)
    counted = flops.step_flops(sharded.lowered_train_step(program, mesh, "stream"))
    # Multiply-adds forward: 3 -> 32 and 32 -> 64 channels on 8x8 pixels, 64 -> 64 on 4x4, each under a 3x3 kernel; two
    # operations each; the gradients of inputs and weights cost as much again, but the first layer needs no input's.
    first, second, third = 64 * 9 * 3 * 32, 64 * 9 * 32 * 64, 16 * 9 * 64 * 64
    expected = 16 / devices * 2 * (2 * first + 3 * (second + third))
    # Zero padding at the borders is not computed (less), BatchNorm and the optimiser are not in the sum (more).
    assert counted == pytest.approx(expected, rel=0.2)


def test_peaks_follow_the_device_and_the_dtype():
    single, half = small.config(), small.config(model={"dtype": "bfloat16"})
    assert flops.peak(half, "NVIDIA H200") == 989e12
    assert flops.peak(single, "NVIDIA H200") == 494e12
    assert flops.peak(half, "TPU v5 lite") == 197e12
    assert flops.peak(half, "TPU v5p") == 459e12
    assert flops.peak(half, "cpu") is None
