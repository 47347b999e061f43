"""The FLOP/s, bytes/s and memory of a step, and the shares of the peaks of known devices."""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from jaxcnn.config import Config
from jaxcnn.learn import programs, spread
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine import mesh as meshes


@dataclasses.dataclass(frozen=True)
class Peak:
    """Peak rates of one device, without sparsity: FLOP/s in 16-bit and float32 arithmetic, bytes/s of its memory.

    float32 means XLA's default for it, which is TF32 on Ampere and later.
    """

    half: float
    single: float
    bandwidth: float

    def of(self, dtype: str) -> float:
        """FLOP/s in arithmetic of a dtype, as `config.model.dtype` names it."""
        return self.single if dtype == "float32" else self.half


# Keyed by a part of JAX's device name; the longest matching key counts. From NVIDIA's data sheets (SXM unless the key
# names another form; half of the figures given with sparsity) and Google Cloud's TPU pages. P100, V100 and T4 reach the
# 16-bit figure in float16 only: they have no bfloat16 arithmetic.
PEAKS = {
    "P100": Peak(21.2e12, 10.6e12, 732e9),
    "V100": Peak(125e12, 15.7e12, 900e9),
    "T4": Peak(65e12, 8.1e12, 320e9),
    "A100": Peak(312e12, 156e12, 1555e9),
    "A100-SXM4-80GB": Peak(312e12, 156e12, 2039e9),
    "A100 80GB PCIe": Peak(312e12, 156e12, 1935e9),
    "L4": Peak(121e12, 60e12, 300e9),
    "H100": Peak(989e12, 494e12, 3350e9),
    "H100 PCIe": Peak(756e12, 378e12, 2000e9),
    "H100 NVL": Peak(835e12, 417e12, 3900e9),
    "H200": Peak(989e12, 494e12, 4800e9),
    "B200": Peak(2250e12, 1100e12, 8000e9),
    "TPU v4": Peak(275e12, 275e12, 1228e9),
    "TPU v5 lite": Peak(197e12, 197e12, 819e9),
    "TPU v5p": Peak(459e12, 459e12, 2765e9),
    "TPU v5": Peak(459e12, 459e12, 2765e9),
    "TPU v6 lite": Peak(918e12, 918e12, 1640e9),
}


def step_flops(traced: jax.stages.Traced) -> float | None:
    """Floating-point operations of one step on one device, as counted by XLA; None if it has no count.

    Counted as for a GPU before optimisation, where a convolution is one operation of known cost. On CPU, Winograd's
    method does fewer; after optimisation, a GPU's convolutions are calls into cuDNN, which count as zero. So this is
    the cost of the mathematics, the same on every machine. A loop whose length is an input counts as one step.
    """
    return _count(traced.lower(lowering_platforms=("cuda",)), "flops")


def of_program(spec: StepSpec, mesh: Mesh, loader: str, steps_per_call: int = 1) -> float | None:
    """`step_flops` of the train step of `spec`, per device of a mesh of any platform; None if it cannot be counted.

    Backend plugins, such as those of GPUs and TPUs, count nothing in an uncompiled program. For them the step is traced
    again, for one device of the CPU backend that does the whole batch; None if that backend is not available. Of a step
    that draws the size of its images, it is the mean over the sizes.
    """
    if len(spec.sizes) > 1:
        counts = [of_program(each, mesh, loader, steps_per_call) for each in spec.sizes]
        known = [count for count in counts if count is not None]
        return sum(known) / len(known) if len(known) == len(counts) else None
    if mesh.devices.flat[0].platform == "cpu":
        return step_flops(programs.train_step.traced(spec, mesh, loader, steps_per_call))
    try:
        one = meshes.over(jax.local_devices(backend="cpu")[:1])
    except RuntimeError:  # JAX_PLATFORMS excludes it
        return None
    whole = step_flops(programs.train_step.traced(spec, one, loader))
    return None if whole is None else whole / mesh.size


def bytes_of_program(spec: StepSpec, mesh: Mesh, loader: str, steps_per_call: int = 1) -> float | None:
    """`step_bytes` of the train step of `spec`; None where XLA cannot count: a loop over microbatches, drawn sizes."""
    if len(spec.sizes) > 1:
        return None
    if spec.optim.accumulate_steps > 1 and not spread.unrolls_microbatches(mesh):
        return None
    return step_bytes(programs.train_step(spec, mesh, loader, steps_per_call))


def step_bytes(compiled: jax.stages.Compiled) -> float | None:
    """Bytes that one step moves to and from one device's memory, as estimated by XLA; None if it has no estimate.

    Counts operands and results of every operation left after fusion, as if none were cached. On a GPU, calls into cuDNN
    and cuBLAS may count as zero; the figure is then less than the traffic.
    """
    return _count(compiled, "bytes accessed")


def working_bytes(compiled: jax.stages.Compiled) -> float | None:
    """The most bytes of one device's memory that a step works with at once, as XLA plans; None if it does not say.

    These are what the layers compute and its gradients; weights, state of the optimiser and images come on top.
    """
    try:
        analysis: Any = compiled.memory_analysis()
    except Exception:  # not every backend has one
        return None
    return float(getattr(analysis, "temp_size_in_bytes", 0)) or None


def _count(spec: jax.stages.Lowered | jax.stages.Compiled, name: str) -> float | None:
    try:
        analysis: Any = spec.cost_analysis()
    except Exception:  # not every backend has a cost analysis
        return None
    count = (analysis or {}).get(name, 0.0)
    return float(count) if count > 0 else None


def peak(device_kind: str) -> Peak | None:
    """The peak rates of a device by JAX's name for it; None for an unlisted device, such as a CPU."""
    words = device_kind.split()
    for name in sorted(PEAKS, key=len, reverse=True):
        # "L4" must not match "NVIDIA L40": a key starts at a word, and no letter or digit follows it.
        if any(
            (rest := " ".join(words[i:])).startswith(name) and not rest[len(name) :][:1].isalnum()
            for i in range(len(words))
        ):
            return PEAKS[name]
    return None


def utilisation(
    config: Config, device_kind: str, steps_per_second: float, flops: float | None, moved: float | None
) -> dict[str, float | None]:
    """FLOP/s and bytes/s of one device, and as shares of its peaks at the run's compute dtype; None where unknown."""
    most = peak(device_kind)
    flop_rate = None if flops is None else flops * steps_per_second
    byte_rate = None if moved is None else moved * steps_per_second
    most_flops = None if most is None else most.of(config.model.dtype)
    return {
        "flops_per_second_per_device": flop_rate,
        "model_flops_utilisation": _share(flop_rate, most_flops),
        "bytes_per_second_per_device": byte_rate,
        "bandwidth_utilisation": _share(byte_rate, None if most is None else most.bandwidth),
    }


def _share(rate: float | None, most: float | None) -> float | None:
    return None if rate is None or most is None else rate / most
