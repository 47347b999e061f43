"""Sweeps shared by the files in `configs/sweeps/`."""

from typing import Any

import ml_collections

from jaxcnn.study import spec

BATCH_SIZES = (32, 64, 128, 256, 512)
LEARNING_RATES = (0.1, 0.01, 0.001, 0.0001)


def paper(*, small: bool, widths: tuple[float, float, float] | None = None) -> spec.Sweep:
    """The study of Ashraf et al.: architectures x batch sizes at its learning rate, and x learning rates at batch 128.

    With `small`, it has fewer batch sizes, rates and seeds. `widths` are those of AlexNet, VGG16 and ResNet50, if they
    are not that of the config.
    """
    networks = spec.zipped(
        spec.values("model.name", ["alexnet", "vgg16", "resnet50"]),
        spec.values("model.dropout", [0.5, 0.0, 0.0]),
        *([spec.values("model.width", widths)] if widths else []),
    )
    sizes, rates = ((16, 32), (0.01, 0.001)) if small else (BATCH_SIZES, LEARNING_RATES)
    by_size = spec.product(
        networks, spec.values("global_batch_size", sizes), spec.values("optim.learning_rate", [0.001])
    )
    by_rate = spec.product(
        networks,
        spec.values("global_batch_size", [32 if small else 128]),
        spec.values("optim.learning_rate", rates),
    )
    return spec.sweep(spec.chain(by_size, by_rate), seeds=2 if small else 3)


def preprocessing(*, small: bool, cutout: int = 16) -> spec.Sweep:
    """Image preprocessing: none, normalisation, crop and flip, and each other augmentation in addition to those.

    `small` is for digits: they are not mirrored, and two seeds suffice. `cutout` is the side of its square, pixels.

    Cutout: DeVries & Taylor 2017 (arXiv 1708.04552). Mixup: Zhang et al. 2018 (1710.09412). CutMix: Yun et al. 2019
    (1905.04899). RandAugment: Cubuk et al. 2019 (1909.13719).
    """
    shifted = {"augment.normalize": True, "augment.crop": "zero", "augment.flip": "none" if small else "random"}
    ways: list[dict[str, Any]] = [
        {"augment.normalize": False},
        {"augment.normalize": True},
        shifted,
        shifted | {"augment.cutout": cutout},
        shifted | {"augment.mixup": 0.2},
        shifted | {"augment.cutmix": 1.0},
        shifted | {"augment.policy": "randaugment"},
    ]
    return spec.sweep(spec.rows(ways), seeds=2 if small else 3)


def attention(*, small: bool) -> spec.Sweep:
    """The attention methods compared with the network without attention; `jaxcnn.models.attention` has their papers."""
    methods = ["none", "se", "eca", "cbam", "bam", "gc", "nonlocal", "coordinate"]
    return spec.sweep(spec.values("model.attention", methods), seeds=2 if small else 3)


def advances(*, network: str) -> spec.Sweep:
    """Varies one choice at a time, all else equal, for a network: "vgg16", "alexnet" or "cnn", a small one.

    The classifier is another one in each: hidden layers, narrower hidden layers, or dropout.

    After Mishkin et al. 2016 (arXiv 1606.02228).
    """
    small = network == "cnn"
    ways: list[dict[str, Any]] = [
        {},
        *({"model.activation": name} for name in ("leaky_relu", "elu", "gelu", "silu", "mish")),
        *({"model.pooling": name} for name in ("mean", "both")),
        {"norm.name": "group"},
        *({"schedule.name": name} for name in ("linear", "constant", "onecycle")),
        *({"global_batch_size": size} for size in ((16, 64) if small else (32, 512))),
    ]
    if not small:
        ways += [
            {"model.batch_norm": False},
            *({"model.colours": name} for name in ("grey", "ycbcr", "learned")),
            *({"data.image_size": side} for side in (24, 40)),
        ]
    if network == "vgg16":
        ways.append({"model.head": "dense4096"})
    elif network == "alexnet":  # its two hidden layers, with a quarter of their 4096 outputs
        ways.append({"model.channels": (("dense1", 1024), ("dense2", 1024))})
    else:
        ways += [{"model.dropout": 0.25}, {"data.image_size": 12}]
    return spec.sweep(spec.rows(ways), seeds=3 if network == "vgg16" else 2)


def architecture(*, trials: int) -> spec.Sweep:
    """Networks of `models.resnet_cifar` with other blocks, channels, kernels and attention in each of three stages.

    A stage has at least the channels of the one before. Accuracy is weighed against operations.
    """
    widths = [(a, b, c) for a in (8, 16, 32) for b in (16, 32, 64) for c in (32, 64, 128) if a <= b <= c]
    stages = [(), (3,), (2, 3), (1, 2, 3)]
    attend = [{"model.attention": "eca", "model.attention_stages": each} for each in stages[1:]]
    space = spec.product(
        *(spec.integers(f"model.stage_blocks[{stage}]", 1, 4) for stage in range(3)),
        *(spec.values(f"model.stage_kernels[{stage}]", [3, 5]) for stage in range(3)),
        spec.values("model.stage_channels", widths),
        spec.rows([{"model.attention": "none", "model.attention_stages": ()}, *attend]),
    )
    return spec.sweep(space, trials=trials, objectives=("flops",), inherit=True)


def cores(config: ml_collections.ConfigDict) -> None:
    """Make a config small enough for 72 trials in an hour or two on two CPU cores, on the real CIFAR-10.

    A fifth of the training images, at half their side, a quarter of the channels, and three epochs; the whole test
    split. So accuracies are far below those of the whole study, and how settings compare may change with more epochs.
    """
    config.data.train_split = "train[:24%]"
    config.data.val_examples = 2000
    config.data.image_size = 16
    config.model.width = 1 / 4
    config.augment.crop_padding = 2
    config.run.epochs = 3.0
    config.run.log_every_steps = 20
    config.run.eval_batch_size = 500
    config.run.tensorboard = False
    config.schedule.warmup = 0.0
    config.checkpoint.every_epochs = 3.0
    config.checkpoint.keep_last = 1


def smoke(config: ml_collections.ConfigDict) -> None:
    """Make a config small, so that the same code runs in minutes: a narrow network, a few steps, handwritten digits."""
    config.data.source = "digits"
    config.data.image_size = 32
    config.data.val_examples = 200
    config.model.width = 1 / 8
    config.global_batch_size = 32
    config.augment.flip = "none"
    config.run.epochs = 0.0
    config.run.steps = 60
    config.run.log_every_steps = 10
    config.run.eval_batch_size = 200
    config.run.eval_every_epochs = 0.5
    config.run.tensorboard = False
    config.schedule.warmup = 0.0
    config.checkpoint.every_epochs = 1.0
    config.checkpoint.keep_last = 1


def smoke_small(config: ml_collections.ConfigDict) -> None:
    """`smoke` with the small network, on the digits in their own size."""
    smoke(config)
    config.model.name = "cnn"
    config.model.width = 1 / 4
    config.data.image_size = 8
    config.augment.crop_padding = 1
