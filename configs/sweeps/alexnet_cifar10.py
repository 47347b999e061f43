"""Learning rate by batch size for AlexNet on CIFAR-10.

    python -m jaxcnn.sweep --config=configs/sweeps/alexnet_cifar10.py --workdir=runs/alexnet_sweep

Variants: `:cpu` is twelve trials of two to three minutes on two CPU cores, 2.5 epochs each; `:smoke` takes seconds, on
the handwritten digits.
"""

from jaxcnn.config import recipes
from jaxcnn.study import spec, sweeps


def get_config(variant: str = ""):
    config = recipes.usual("alexnet", "tfds:cifar10")
    config.schedule.name = "onecycle"
    config.schedule.warmup = 5.0
    config.model.dropout = 0.2
    config.run.epochs = 30.0
    return recipes.apply_variant(config, variant, paper=None, smoke=sweeps.smoke, cpu=cpu)


def cpu(config):
    """A short one-cycle run, evaluated twice, that writes only what is necessary."""
    config.schedule.warmup = 0.5
    config.run.epochs = 2.5
    config.run.eval_every_epochs = 1.25
    config.run.eval_batch_size = 500
    config.run.tensorboard = False
    config.checkpoint.every_epochs = 0.5
    config.checkpoint.keep_last = 1


def get_sweep(variant: str = ""):
    sizes, rates = ((16, 32), (0.02, 0.1)) if variant == "smoke" else ((64, 128, 256), (0.02, 0.05, 0.1, 0.2))
    return spec.sweep(spec.product(spec.values("global_batch_size", sizes), spec.values("optim.learning_rate", rates)))
