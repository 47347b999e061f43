"""A U-Net: a class for each pixel of your images.

    python -m jaxcnn.main --config=configs/unet_masks.py --config.data.source=masks:photos

`coco:<folder>` paints the outlines of a set in COCO's form. The network is the paper's (Ronneberger et al. 2015, arXiv
1505.04597) with BatchNorm at half its width; `--config.model.name=unet_resnet18` starts from trained weights by
`config.init.source`. Half of the loss is soft Dice (Milletari et al. 2016, arXiv 1606.04797). Judged by the mean IoU.
"""

from jaxcnn.config import default, recipes, recipes_of_objects


def get_config(variant: str = ""):
    config = default()
    config.model.name = "unet"
    config.model.width = 0.5
    config.task.name = "segmentation"
    config.task.dice_share = 0.5
    config.data.source = "masks:photos"
    config.data.image_size = 256
    config.data.resize = "pad"
    config.global_batch_size = 8
    config.augment.flip = "random"
    config.augment.zoom = 0.3
    config.augment.brightness = 0.3
    config.augment.contrast = 0.3
    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.01
    config.optim.ema_decay = 0.99
    config.schedule.warmup = 1.0
    config.schedule.final_factor = 0.01
    config.run.epochs = 60.0
    config.run.eval_batch_size = 16
    config.checkpoint.every_epochs = 1.0
    return recipes.apply_variant(config, variant, paper=None, smoke=recipes_of_objects.smoke_on_shapes)
