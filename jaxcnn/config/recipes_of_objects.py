"""Recipes for tasks whose answers have places in the image: boxes, masks and pixels."""

import ml_collections


def one_stage(config: ml_collections.ConfigDict) -> None:
    """The recipe of detectors of one stage: AdamW and a cosine, 100 epochs (see `configs/yolo_resnet18_coco.py`)."""
    config.task.name = "detection"
    config.data.source = "coco:coco"
    config.data.resize = "pad"
    config.global_batch_size = 16
    config.augment.flip = "random"
    config.augment.zoom = 0.5
    config.augment.brightness = 0.3
    config.augment.saturation = 0.3
    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.05
    config.optim.clip_norm = 35.0
    config.optim.ema_decay = 0.999
    config.schedule.warmup = 1.0
    config.schedule.final_factor = 0.05
    config.run.epochs = 100.0
    config.checkpoint.every_epochs = 1.0


def two_stages(config: ml_collections.ConfigDict) -> None:
    """The recipe of detectors of two stages: squares of 512 pixels, 12 epochs of SGD."""
    config.task.most_overlap = 0.5
    config.data.image_size = 512
    config.data.resize = "pad"
    config.global_batch_size = 8
    config.augment.flip = "random"
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.02
    config.optim.base_batch_size = 16
    config.optim.momentum = 0.9
    config.optim.nesterov = False
    config.optim.weight_decay = 1e-4
    config.optim.clip_norm = 35.0
    config.schedule.name = "multistep"
    config.schedule.boundaries = (8.0, 11.0)
    config.schedule.warmup = 0.5
    config.run.epochs = 12.0
    config.checkpoint.every_epochs = 1.0


def smoke_on_shapes(config: ml_collections.ConfigDict) -> None:
    """`smoke` for tasks whose answers have places: a few steps on made-up shapes, without a data set."""
    config.data.source = "shapes:32:32"
    config.data.image_size = 0
    config.data.val_examples = 8
    config.model.width = 1 / 16
    config.global_batch_size = 8
    config.run.epochs = 0.0
    config.run.steps = 4
    config.run.log_every_steps = 2
    config.schedule.warmup = 0.0


def smoke_of_two_stages(config: ml_collections.ConfigDict) -> None:
    """`smoke_on_shapes` for `two_stages`."""
    smoke_on_shapes(config)
    config.model.width = 1 / 32
    config.schedule.name = "cosine"
    config.schedule.boundaries = ()
