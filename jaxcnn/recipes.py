"""Training recipes that the files of `configs/` share; each changes a ConfigDict from `jaxcnn.config.default`."""

import ml_collections

from jaxcnn.config import default, unknown_variant


def strong(model: str, source: str) -> ml_collections.ConfigDict:
    """The default recipe: SGD with Nesterov momentum, cosine from 0.1, weight decay 5e-4, 200 epochs, crop and flip.

    The usual recipe for CIFAR since wide residual networks (Zagoruyko & Komodakis 2016, arXiv 1605.07146), with a
    cosine in place of steps (Loshchilov & Hutter 2016, arXiv 1608.03983).
    """
    config = default()
    config.model.name = model
    config.data.source = source
    config.global_batch_size = 128
    config.augment.crop = "zero"
    config.augment.flip = True
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.warmup = 1.0
    config.run.epochs = 200.0
    config.run.eval_batch_size = 1000
    config.checkpoint.every_epochs = 1.0
    return config


def paper(config: ml_collections.ConfigDict) -> None:
    """The recipe of the seed paper: batch 128 at learning rate 0.001.

    The optimiser (Adam), the constant rate and the 100 epochs are choices made here to go with these two figures.
    """
    config.global_batch_size = 128
    config.optim.name = "adam"
    config.optim.learning_rate = 0.001
    config.optim.weight_decay = 0.0
    config.schedule.name = "constant"
    config.schedule.warmup = 0.0
    config.run.epochs = 100.0


def smoke(config: ml_collections.ConfigDict) -> None:
    """The same code path in seconds: a thin network and a few steps on synthetic images, without any data set."""
    classes = 100 if "100" in config.data.source else 10
    config.data.source = f"synthetic:32x32x3:{classes}:1024"
    config.data.val_examples = 256
    config.model.width = 1 / 16
    config.global_batch_size = 32
    config.run.epochs = 0.0
    config.run.steps = 12
    config.run.log_every_steps = 4
    config.run.eval_batch_size = 128
    config.schedule.warmup = 0.0


VARIANTS = {"paper": paper, "smoke": smoke}


def apply_variant(config: ml_collections.ConfigDict, variant: str, **own) -> ml_collections.ConfigDict:
    """Apply the variant named in `--config=<file>:<variant>`, of the shared ones or of the file's `own`.

    Raises:
      ConfigError: there is no such variant.
    """
    variants = VARIANTS | own
    if variant:
        if variant not in variants:
            raise unknown_variant(variant, tuple(variants))
        variants[variant](config)
    return config
