"""How much of the machine a step uses: model FLOP/s against the peak of known devices."""

import jax

from jaxcnn.config import Config

# Dense peak FLOP/s of one device: (bfloat16, float32 as XLA runs it by default: TF32 on Ampere and later).
# From NVIDIA's data sheets of P100, V100, A100, H100/H200 SXM and B200, and Google Cloud's TPU pages.
PEAKS = {
    "P100": (21.2e12, 10.6e12),
    "V100": (125e12, 15.7e12),
    "A100": (312e12, 156e12),
    "L4": (121e12, 60e12),
    "H100": (989e12, 494e12),
    "H200": (989e12, 494e12),
    "B200": (2250e12, 1100e12),
    "TPU v4": (275e12, 275e12),
    "TPU v5 lite": (197e12, 197e12),
    "TPU v5": (459e12, 459e12),
    "TPU v6 lite": (918e12, 918e12),
}


def step_flops(lowered: jax.stages.Lowered) -> float | None:
    """Floating-point operations of one step on one device, by XLA's own count; None if it has none.

    Of the program before optimisation: after it, a GPU's convolutions are calls into cuDNN, which count as nothing.
    A loop whose length is an input counts as one step.
    """
    try:
        analysis = lowered.cost_analysis()
    except Exception:  # not every backend has one
        return None
    flops = (analysis or {}).get("flops", 0.0)
    return float(flops) if flops > 0 else None


def peak(config: Config, device_kind: str) -> float | None:
    """Peak FLOP/s of a device at the run's compute dtype; None for one that is not listed, such as a CPU."""
    for name in sorted(PEAKS, key=len, reverse=True):
        if name in device_kind:
            return PEAKS[name][config.model.dtype == "float32"]
    return None
