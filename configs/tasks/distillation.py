"""A small network that learns from a large one: the teacher is the workdir of a finished run.

    python -m jaxcnn.main --config=configs/tasks/distillation.py --config.task.teacher=runs/resnet50_cifar10

Hinton et al. 2015 (arXiv 1503.02531), with many epochs and the same augmentation for both (Beyer et al. 2021, arXiv
2106.05237).
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    config = recipes.usual("cnn", "tfds:cifar10")
    config.task.teacher = "runs/resnet50_cifar10"
    config.task.temperature = 4.0
    config.task.teacher_share = 0.9
    config.optim.ema_decay = 0.999
    return recipes.apply_variant(config, variant, paper=None, smoke=None)
