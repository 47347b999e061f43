"""The speedrun on CIFAR-10 over ten seeds, with the published eight epochs and with the ten of its config.

    python -m jaxcnn.sweep --config=configs/sweeps/speedrun_cifar10.py:gpu --workdir=runs/speedruns

Shows how reliably 94 % is reached, and the time: trials after the first of a length start with a compiled program.
Without a validation split (protocol=full); these runs choose nothing.

Variants: `:gpu` computes in bfloat16, `:many` does so for fifty seeds; `:smoke` takes seconds, on synthetic images.
"""

from jaxcnn.config import recipes
from jaxcnn.study import spec


def get_config(variant: str = ""):
    return recipes.apply_speedrun_variant(recipes.speedrun("tfds:cifar10"), variant, many=recipes.bfloat16)


def get_sweep(variant: str = ""):
    if variant == "smoke":
        return spec.sweep(spec.values("run.steps", [8, 12]), seeds=2)
    return spec.sweep(spec.values("run.epochs", [8.0, 10.0]), seeds=50 if variant == "many" else 10)
