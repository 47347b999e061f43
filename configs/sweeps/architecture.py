"""A search for a small network: blocks, channels, kernels and attention of each stage, accuracy against operations.

    python -m jaxcnn.sweep --config=configs/sweeps/architecture.py --workdir=runs/architecture --sampler=nsga2
    python -m jaxcnn.sweep --config=configs/sweeps/architecture.py --workdir=runs/architecture --sampler=tpe

A residual network for CIFAR-10 of three stages. Each trial starts from the weights of the finished one that is most
like it, and trains for a few epochs more, so figures tell which networks learn well, not what they reach; train those
of the Pareto front anew. `--engine=processes` or `--engine=slurm` give it more workers.

Variants: `:cores`, 24 trials of 3 epochs on 10,000 images, for two CPU cores; `:smoke`, on the handwritten digits.
"""

from jaxcnn.config import recipes
from jaxcnn.study import sweeps


def get_config(variant: str = ""):
    config = recipes.usual("resnet20", "tfds:cifar10")
    config.run.epochs = 10.0
    config.schedule.warmup = 1.0
    return recipes.apply_variant(config, variant, paper=None, smoke=smoke, cores=cores)


def smoke(config):
    sweeps.smoke_small(config)
    config.model.name = "resnet20"
    config.run.steps = 20


def cores(config):
    config.data.train_split = "train[:10000]"
    config.data.val_examples = 2000
    config.run.epochs = 3.0
    config.global_batch_size = 64
    config.schedule.warmup = 0.5


def get_sweep(variant: str = ""):
    return sweeps.architecture(trials={"smoke": 6, "cores": 24}.get(variant, 200))
