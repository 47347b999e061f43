"""Training recipes shared by the files in `configs/`; each changes a ConfigDict from `jaxcnn.config.default`."""

import json
import pathlib

import ml_collections

from jaxcnn.config import UserError, default, from_config_dict, to_dict, unknown_variant


def from_run(folder: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of the run in a folder, which starts from the weights of that run.

    Raises:
      ConfigError: its config has mistakes, as one that was changed.
      UserError: it cannot be read.
    """
    path = folder / "config.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it from a backup") from None
    config = from_config_dict(kept)
    tree = ml_collections.ConfigDict(to_dict(config))
    tree.init.source = f"workdir:{folder.absolute()}"
    return tree


def usual(model: str, source: str) -> ml_collections.ConfigDict:
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


def strong(config: ml_collections.ConfigDict) -> None:
    """What the strongest published recipes for CIFAR have, for one GPU. We have not measured it yet.

    ResNet50 has what Xu (https://github.com/tcmyxc/Strong-Baselines-for-CIFAR100, 2024) added step by step on
    CIFAR-100, from 80.39 % to 86.01 %, to 86.12 % with stochastic depth, and to 86.34 % in mixed precision with batches
    of 256: 300 epochs, 20 of them warm-up, a cosine from 0.1 to 1e-6, weight decay 5e-4, AutoAugment, random erasing of
    a quarter of the images, mixup and cutmix with alpha 1, the last stage at stride 1, shortcuts of ResNet-D,
    stochastic depth 0.1. Differences: these batches are on four GPUs there, 64 images each, and the momentum is not
    Nesterov's; 5,000 training images are held out here, unless `data.protocol` is "full".

    For AlexNet and VGG16 no such steps are published. Our choice is less of the same, in the usual 200 epochs:
    TrivialAugment (Müller & Hutter 2021, arXiv 2103.10158), random erasing, no mixing, label smoothing 0.1 (Szegedy et
    al. 2016, arXiv 1512.00567, section 7), and five epochs of warm-up (Goyal et al. 2017, arXiv 1706.02677, section 2).

    Our choice for all three: bfloat16 as the second precision, crop and flip as before, and no moving average, since
    the rate falls to almost 0.
    """
    bfloat16(config)
    config.global_batch_size = 256
    config.augment.erasing = 0.25
    config.schedule.warmup = 5.0
    config.schedule.final_factor = 1e-5
    if config.model.name != "resnet50":
        config.augment.policy = "trivialaugment"
        config.optim.label_smoothing = 0.1
        return
    config.model.last_stride = 1
    config.model.shortcut = "pooled"
    config.model.stochastic_depth = 0.1
    config.augment.policy = "autoaugment"
    config.augment.mixup = 1.0
    config.augment.cutmix = 1.0
    config.schedule.warmup = 20.0
    config.run.epochs = 300.0


def cores(config: ml_collections.ConfigDict) -> None:
    """What all recipes for two CPU cores have: one rise and fall of the rate, and averages that are ready early.

    A one-cycle schedule (Smith & Topin 2017, arXiv 1708.07120), label smoothing 0.1 (Szegedy et al. 2016, arXiv
    1512.00567, section 7), reflected borders and alternating flip (Jordan 2024, arXiv 2404.00498), and a moving average
    of the weights, which lets every validation see what the end of the schedule will bring. 2,000 training images are
    held out. The test reports the mean of an image and its mirror image beside the plain figure.
    """
    config.data.val_examples = 2000
    config.augment.crop = "reflect"
    config.augment.flip = "alternating"
    config.optim.label_smoothing = 0.1
    config.optim.ema_decay = 0.999
    config.schedule.name = "onecycle"
    config.run.eval_batch_size = 500
    config.run.tta = "flip"


def alexnet_cores(config: ml_collections.ConfigDict) -> None:
    """AlexNet on two CPU cores: 40 epochs from the rate that was best on validation in a sweep of 2.5 epochs.

    The sweep is `results/sweeps/alexnet_cifar10_cpu`: 0.1 at batches of 128. The network has BatchNorm, which the
    original has not, and dropout as there. One run on CIFAR-10: 87.46 % (results/paper.md); it knew its training images
    well (94 %), so CIFAR-100, with a tenth of the images per class, gets cutout of DeVries & Taylor's size (2017): one
    run, 62.25 %.
    """
    cores(config)
    config.schedule.warmup = 4.0
    config.run.epochs = 40.0
    if config.data.source.endswith("cifar100"):
        config.augment.cutout = 8


def alexnet_plain(config: ml_collections.ConfigDict) -> None:
    """AlexNet as it was published, without BatchNorm, after any other recipe; with SGD, at a tenth of its rate, 0.01.

    0.01 is the rate of Krizhevsky et al. 2012 (section 5), for batches of 128 as here. Without BatchNorm, 0.1 is too
    large for plain SGD. Not measured yet.
    """
    config.model.batch_norm = False
    if config.optim.name == "sgd":
        config.optim.learning_rate = config.optim.learning_rate / 10


def _cores_with_muon(config: ml_collections.ConfigDict) -> None:
    """`cores` with Muon for the kernels, at rates of a first try."""
    cores(config)
    config.optim.name = "muon"
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.6
    config.optim.sgd_momentum = 0.85


def muon_cores(config: ml_collections.ConfigDict) -> None:
    """VGG16 and ResNet50 on two CPU cores: few epochs, with Muon for the kernels.

    Rates are those of a first try; `configs/sweeps/cores.py` compares them with others, and with SGD, on validation.
    Batches of 256 halve what Muon's matrix products cost beside batches of 128. Images grow during the run (progressive
    resizing, as in `configs/speedrun_cifar100.py`), but for VGG16 on CIFAR-10, which was measured without. VGG16 has no
    side of 24: 3 pixels are left of it before the last convolutions, too few for their fast forms, so that its steps
    took 0.83 of the time of those on 32, and those on 16 0.54.
    """
    _cores_with_muon(config)
    config.global_batch_size = 256
    config.schedule.warmup = 2.0
    config.run.epochs = 20.0
    if config.model.name == "resnet50":
        config.augment.small_sides = (16, 24)
        config.augment.small_until = (0.4, 0.8)
        config.run.epochs = 12.0
    elif config.data.source.endswith("cifar100"):
        config.augment.small_sides = (16,)
        config.augment.small_until = (0.5,)
        config.run.epochs = 16.0


def resnet20_cores(config: ml_collections.ConfigDict) -> None:
    """CIFAR's ResNet-20 on two CPU cores: ten epochs with Muon.

    One run on CIFAR-10: 85.70 % test accuracy of the moving average, training accuracy 85.91 %: it needs more epochs.
    """
    _cores_with_muon(config)
    config.optim.label_smoothing = 0.0
    config.schedule.warmup = 1.0
    config.run.epochs = 10.0


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

    Several are joined by "+" and applied one after another: "strong+smoke". A shared variant that is None in `own` is
    not available.

    Raises:
      ConfigError: no such variant.
    """
    variants = {name: change for name, change in (VARIANTS | own).items() if change is not None}
    for name in variant.split("+") if variant else ():
        if name not in variants:
            raise unknown_variant(name, tuple(variants))
        variants[name](config)
    return config


def apply_speedrun_variant(config: ml_collections.ConfigDict, variant: str, **own) -> ml_collections.ConfigDict:
    """`apply_variant` for a speedrun, which has its own `smoke`, has `gpu`, and has no `paper`."""
    return apply_variant(config, variant, paper=None, smoke=speedrun_smoke, gpu=bfloat16, **own)
