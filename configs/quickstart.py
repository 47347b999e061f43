"""Handwritten digits in under a minute on two cores, without a network: the quick start.

    python -m jaxcnn.main --config=configs/quickstart.py

A small CNN (configs of the same form train large networks) on the 8 x 8 digits that ship with jaxcnn
(E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998): above 98 % test accuracy.
"""

from jaxcnn.config import default, unknown_variant

VARIANTS = ("smoke",)


def get_config(variant: str = ""):
    config = default()
    config.global_batch_size = 64
    config.model.name = "cnn"
    config.data.source = "digits"
    config.data.val_examples = 200
    config.augment.crop = "zero"
    config.augment.crop_padding = 1
    config.optim.learning_rate = 0.2
    config.optim.label_smoothing = 0.1
    config.schedule.name = "onecycle"
    config.run.epochs = 30.0
    config.run.log_every_steps = 10
    config.run.eval_every_epochs = 2.0
    config.run.eval_batch_size = 256
    config.checkpoint.every_epochs = 10.0
    if variant == "smoke":
        config.run.epochs = 2.0
    elif variant:
        raise unknown_variant(variant, VARIANTS)
    return config
