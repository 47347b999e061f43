"""Remote sensing: seven kinds of aerial scenes from 2,800 images (RSSCN7), small enough for two cores.

    python -m jaxcnn.main --config=configs/rsscn7.py --config.data.source=folder:RSSCN7

The set is Q. Zou et al., "Deep Learning Based Feature Selection for Remote Sensing Scene Classification", IEEE GRSL
2015: 400 images for each of seven classes, one folder a class, as in https://github.com/palewithout/RSSCN7. It has no
splits: the path of each image puts it into train, val or test. `:finetune` starts from weights of ResNet-20 for
CIFAR-10 in a file (`config.init.source=file:resnet20.npz`; docs/transfer.md says which), with lower rates before the
classifier. Kappa, and sensitivities at a specificity of 95 %, are reported beside the accuracy.
"""

from jaxcnn.config import default, recipes


def get_config(variant: str = ""):
    config = default()
    config.global_batch_size = 64
    config.model.name = "resnet20"
    config.task.specificity = 0.95
    config.data.source = "folder:RSSCN7"
    config.data.image_size = 32
    config.augment.crop = "reflect"
    config.augment.flip = "random"
    config.optim.learning_rate = 0.1
    config.optim.weight_decay = 5e-4
    config.optim.label_smoothing = 0.1
    config.schedule.warmup = 1.0
    config.run.epochs = 8.0
    config.run.log_every_steps = 10
    config.run.eval_batch_size = 128
    config.run.test_with = "best"
    config.checkpoint.every_epochs = 4.0
    return recipes.apply_variant(config, variant, paper=None, finetune=_finetune, smoke=_smoke)


def _finetune(config) -> None:
    config.init.source = "file:resnet20.npz"
    config.augment.normalize_by = "imagenet"  # as these weights were trained
    config.optim.layers = (("classifier/.*", 1.0), (".*", 0.1))


def _smoke(config) -> None:
    recipes.smoke(config)
    config.data.image_size = 0
