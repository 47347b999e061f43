"""Recipes for two CPU cores, compared in three epochs on validation: Muon at three rates, SGD at two.

    python -m jaxcnn.sweep --config=configs/sweeps/cores.py:vgg16_cifar10 --workdir=runs/cores_vgg16_cifar10

The variant is the network and the set; what the trials share is `:cores` of its config. Variant `:smoke` takes seconds,
on the handwritten digits. The test split decides nothing.
"""

from jaxcnn.config import recipes, unknown_variant
from jaxcnn.study import spec, sweeps

CELLS = tuple(f"{model}_{data}" for model in ("vgg16", "resnet50") for data in ("cifar10", "cifar100"))


def get_config(variant: str = ""):
    cell = variant or CELLS[0]
    if cell not in (*CELLS, "smoke"):
        raise unknown_variant(variant, (*CELLS, "smoke"))
    model, data = (CELLS[0] if cell == "smoke" else cell).split("_")
    config = recipes.usual(model, f"tfds:{data}")
    recipes.muon_cores(config)
    config.data.val_examples = 5000
    config.schedule.warmup = 0.5
    config.run.epochs = 3.0
    config.checkpoint.every_epochs = 0.5
    config.checkpoint.keep_last = 1
    if cell == "smoke":
        sweeps.smoke(config)
    return config


def get_sweep(variant: str = ""):
    muon = spec.values("optim.learning_rate", [0.03, 0.1] if variant == "smoke" else [0.03, 0.1, 0.3])
    sgd = spec.product(
        spec.values("optim.name", ["sgd"]),
        spec.values("optim.momentum", [0.9]),
        spec.values("optim.learning_rate", [0.1] if variant == "smoke" else [0.05, 0.2]),
    )
    return spec.sweep(spec.chain(muon, sgd))
