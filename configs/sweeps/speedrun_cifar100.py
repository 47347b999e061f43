"""The speedrun on CIFAR-100 over ten seeds.

    python -m jaxcnn.sweep --config=configs/sweeps/speedrun_cifar100.py:gpu --workdir=runs/speedruns100

Without a validation split (protocol=full); these runs choose nothing.

Variants: `:gpu` computes in bfloat16, `:many` does so for fifty seeds; `:smoke` takes seconds, on synthetic images.
"""

from jaxcnn.config import recipes
from jaxcnn.study import spec


def get_config(variant: str = ""):
    config = recipes.speedrun_cifar100("tfds:cifar100")
    return recipes.apply_speedrun_variant(config, variant, many=recipes.bfloat16)


def get_sweep(variant: str = ""):
    if variant == "smoke":
        return spec.sweep(spec.values("run.steps", [8]), seeds=2)
    return spec.sweep(spec.values("run.epochs", [10.0]), seeds=50 if variant == "many" else 10)
