"""AlexNet (Krizhevsky et al. 2012) with a 3x3 stem on CIFAR-10.

    python -m jaxcnn.main --config=configs/alexnet_cifar10.py

Ashraf et al. report 87.3 % test accuracy.

Variants: `:paper` is the paper's batch size and learning rate, `:strong` what the strongest published recipes have, for
a GPU (`recipes.strong`; not measured yet), `:cores` 40 epochs for two CPU cores (`recipes.alexnet_cores`): 87.46 %
(seed 0, jax 0.10.2; `results/alexnet_cifar10_cores`),
`:smoke` the same code path in seconds, also as `:strong+smoke`,
`:cpu` a run of one hour on two CPU cores: 83.33 % (seed 0, 15 epochs, jax 0.10.2; `results/alexnet_cifar10_cpu`).

All have BatchNorm, which the published network lacks; `:plain`, also as `:cores+plain`, has none and a tenth of the
rate (`recipes.alexnet_plain`; not measured yet).
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    config = recipes.usual("alexnet", "tfds:cifar10")
    config.model.dropout = 0.5
    return recipes.apply_variant(
        config, variant, strong=recipes.strong, cores=recipes.alexnet_cores, plain=recipes.alexnet_plain, cpu=cpu
    )


def cpu(config):
    """A short one-cycle run."""
    config.optim.learning_rate = 0.05
    config.schedule.name = "onecycle"
    config.schedule.warmup = 3.0
    config.model.dropout = 0.2
    config.run.epochs = 15.0
    config.run.eval_batch_size = 500
