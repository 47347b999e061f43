"""AlexNet (Krizhevsky et al. 2012) with a 3x3 stem on CIFAR-100.

    python -m jaxcnn.main --config=configs/alexnet_cifar100.py

Ashraf et al. give no figure for this pair.

Variants: `:paper` is the paper's batch size and learning rate, `:strong` what the strongest published recipes have, for
a GPU (`recipes.strong`; not measured yet), `:cores` 40 epochs for two CPU cores (`recipes.alexnet_cores`): 62.25 %
(seed 0, jax 0.10.2; `results/alexnet_cifar100_cores`),
`:smoke` the same code path in seconds, also as `:strong+smoke`.

All have BatchNorm, which the published network lacks; `:plain`, also as `:cores+plain`, has none and a tenth of the
rate (`recipes.alexnet_plain`; not measured yet).
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    config = recipes.usual("alexnet", "tfds:cifar100")
    config.model.dropout = 0.5
    return recipes.apply_variant(
        config, variant, strong=recipes.strong, cores=recipes.alexnet_cores, plain=recipes.alexnet_plain
    )
