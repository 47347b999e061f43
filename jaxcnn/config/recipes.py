"""Training recipes shared by the files in `configs/`; each changes a ConfigDict from `jaxcnn.config.default`."""

import ml_collections

from jaxcnn.config import default, unknown_variant


def strong(model: str, source: str) -> ml_collections.ConfigDict:
    """The default recipe: SGD with Nesterov momentum, cosine from 0.1, weight decay 5e-4, 200 epochs, crop and flip.

    The usual recipe for CIFAR since wide residual networks (Zagoruyko & Komodakis 2016, arXiv 1605.07146), with a
    cosine instead of steps (Loshchilov & Hutter 2016, arXiv 1608.03983).
    """
    config = default()
    config.model.name = model
    config.data.source = source
    config.global_batch_size = 128
    config.augment.crop = "zero"
    config.augment.flip = "random"
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.weight_decay = 5e-4
    config.schedule.name = "cosine"
    config.schedule.warmup = 1.0
    config.run.epochs = 200.0
    config.run.eval_batch_size = 1000
    config.checkpoint.every_epochs = 1.0
    return config


def speedrun(source: str) -> ml_collections.ConfigDict:
    """The recipe of airbench94_muon: Jordan 2024 (arXiv 2404.00498), and its successor with Muon."""
    config = default()
    config.model.name = "airbench"
    config.norm.momentum = 0.6
    config.norm.epsilon = 1e-12
    config.data.source = source
    config.data.protocol = "full"
    config.augment.crop = "reflect"
    config.augment.crop_padding = 2
    config.augment.flip = "alternating"
    config.optim.name = "muon"
    config.optim.momentum = 0.6
    config.optim.newton_schulz_steps = 3
    config.optim.sgd_momentum = 0.85
    config.optim.decay_norm_and_bias = True
    config.optim.label_smoothing = 0.2
    config.optim.whitening_bias_epochs = 3.0
    speedrun_rates(config, batch=2000)
    config.schedule.name = "linear"
    config.run.epochs = 10.0
    config.run.eval_batch_size = 1000
    config.run.log_every_steps = 5
    config.run.tta = "flip_translate"
    return config


def speedrun_cifar100(source: str) -> ml_collections.ConfigDict:
    """`speedrun` for a hundred classes; `configs/speedrun_cifar100.py` says what differs, and from where it is."""
    config = speedrun(source)
    config.model.name = "airbench_residual"
    config.augment.small_sides = (20, 24)
    config.augment.small_until = (0.15, 0.5)
    speedrun_rates(config, batch=1000, kernels=0.18, classifier=6.0)
    config.optim.label_smoothing = 0.25
    config.schedule.warmup = 2.0
    config.run.epochs = 10.0
    return config


def speedrun_rates(
    config: ml_collections.ConfigDict, batch: int, kernels: float = 0.24, classifier: float = 0.67
) -> None:
    """Set the batch size, and the learning rates of airbench94_muon.

    Its loss is the sum over the batch, ours the mean, so SGD's rates (0.053 for biases, and that of the classifier) are
    multiplied by `batch` here; Muon ignores the scale. All these parameters shrink by 2e-6 * batch per step. The rates
    are stored as factors of Muon's rate, so all follow a sweep over `optim.learning_rate`.

    Args:
      config: the config to change.
      batch: examples per step.
      kernels: Muon's rate.
      classifier: SGD's rate for the classifier's kernel.
    """
    config.global_batch_size = batch
    config.optim.learning_rate = kernels
    config.optim.bias_gradient_factor = 0.053 * batch / kernels
    config.optim.classifier_gradient_factor = classifier * batch / kernels
    config.optim.weight_decay = 2e-6 * batch / kernels


def bfloat16(config: ml_collections.ConfigDict) -> None:
    """Compute in bfloat16, for GPUs and TPUs; parameters and statistics stay float32."""
    config.model.dtype = "bfloat16"


def paper(config: ml_collections.ConfigDict) -> None:
    """The recipe of Ashraf et al.: batch 128 at learning rate 0.001.

    The optimiser (Adam), the constant rate and the 100 epochs are our choices to go with these two figures.
    """
    config.global_batch_size = 128
    config.optim.name = "adam"
    config.optim.learning_rate = 0.001
    config.optim.weight_decay = 0.0
    config.schedule.name = "constant"
    config.schedule.warmup = 0.0
    config.run.epochs = 100.0


def smoke(config: ml_collections.ConfigDict) -> None:
    """The same code path in seconds: a narrow network and a few steps on synthetic images, without a data set."""
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


def speedrun_smoke(config: ml_collections.ConfigDict) -> None:
    """`smoke` for a speedrun."""
    smoke(config)
    speedrun_rates(config, batch=config.global_batch_size)
    config.model.width = 1 / 4


VARIANTS = {"paper": paper, "smoke": smoke}


def apply_variant(config: ml_collections.ConfigDict, variant: str, **own) -> ml_collections.ConfigDict:
    """Apply the variant named in `--config=<file>:<variant>`: a shared one, or one of the file's `own`.

    A shared variant that is None in `own` is not available.

    Raises:
      ConfigError: no such variant.
    """
    variants = {name: change for name, change in (VARIANTS | own).items() if change is not None}
    if variant:
        if variant not in variants:
            raise unknown_variant(variant, tuple(variants))
        variants[variant](config)
    return config


def apply_speedrun_variant(config: ml_collections.ConfigDict, variant: str, **own) -> ml_collections.ConfigDict:
    """`apply_variant` for a speedrun, which has its own `smoke`, has `gpu`, and has no `paper`."""
    return apply_variant(config, variant, paper=None, smoke=speedrun_smoke, gpu=bfloat16, **own)
