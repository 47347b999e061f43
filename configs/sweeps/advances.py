"""One choice at a time, all else equal: what each contributes to a VGG16 on CIFAR-10.

    python -m jaxcnn.sweep --config=configs/sweeps/advances.py --workdir=runs/advances

In the line of Mishkin et al. 2016, "Systematic evaluation of CNN advances on the ImageNet" (arXiv 1606.02228):
nonlinearity, pooling, normalisation, classifier, schedule, batch size, colours and image size, each changed alone from
a plain network with BatchNorm, ReLU and max-pooling. Three seeds each.

Each network varies the classifier that it has: VGG16 gets hidden layers, AlexNet's hidden layers get a quarter of their
outputs, and the small CNN gets dropout before its classifier.

Variants: `:cores`, AlexNet with BatchNorm, six epochs, two seeds, for two CPU cores in hours; `:smoke`, the small CNN
on the handwritten digits, in minutes. `:smoke` has no choice of colours, since the digits are grey, and none without
BatchNorm, which this CNN always has.
"""

from jaxcnn.config import recipes
from jaxcnn.study import sweeps


def get_config(variant: str = ""):
    config = recipes.usual("vgg16", "tfds:cifar10")
    config.optim.base_batch_size = config.global_batch_size  # so that a batch size has the rate that suits it
    config.schedule.name = "cosine"
    return recipes.apply_variant(config, variant, paper=None, smoke=sweeps.smoke_small, cores=cores)


def cores(config):
    config.model.name = "alexnet"
    config.model.dropout = 0.2
    config.run.epochs = 6.0
    config.run.eval_every_epochs = 3.0
    config.schedule.warmup = 1.0


def get_sweep(variant: str = ""):
    return sweeps.advances(network={"smoke": "cnn", "cores": "alexnet"}.get(variant, "vgg16"))
