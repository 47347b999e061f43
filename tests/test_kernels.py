"""The kernels of a profile, and what the command says where there is no GPU."""

import os
from types import SimpleNamespace

from benchmarks import trace
from tests import runs


def event(name, microseconds):
    return SimpleNamespace(name=name, duration_ns=1e3 * microseconds)


def test_kernels_are_those_on_the_streams_of_gpus_the_longest_first():
    streams = [
        SimpleNamespace(name="Stream #14(Compute)", events=[event("add", 1), event("conv", 5), event("add", 2)]),
        SimpleNamespace(name="XLA Ops", events=[event("conv", 5)]),
        SimpleNamespace(name="Stream #15(MemcpyH2D)", events=[event("MemcpyH2D", 0.5)]),
    ]
    planes = [
        SimpleNamespace(name="/host:CPU", lines=[SimpleNamespace(name="Stream", events=[event("python", 100)])]),
        SimpleNamespace(name="/device:GPU:0", lines=streams),
    ]
    found = [(kernel.name, round(1e6 * kernel.seconds, 3), kernel.starts) for kernel in trace.kernels_of(planes)]
    assert found == [("conv", 5.0, 1), ("add", 3.0, 2), ("MemcpyH2D", 0.5, 1)]


def test_on_a_cpu_the_command_tells_the_speed_alone():
    flags = ("--model=alexnet", "--batch_size=8", "--width=0.0625", "--steps=2", "--traced=1")
    code, output, told = runs.python("-m", "benchmarks.kernels", *flags, env=os.environ | runs.UNOPTIMISED)
    assert code == 0, told
    title, speed = output.splitlines()
    assert title.startswith("alexnet training, batch 8, cpu float32")
    assert " ms/step, " in speed and " images/s, " in speed and "GFLOP/s" in speed and "GB/s" in speed
    assert "kernels" not in output
