"""Mask R-CNN on ResNet18, for a set in COCO's form with outlines.

    python -m jaxcnn.main --config=configs/mask_rcnn_resnet18_coco.py --config.data.source=coco:data/nuclei

Images become squares of 512 pixels with bars (`data.resize="pad"`). The recipe is that of He et al. 2017 (arXiv
1703.06870, section 3.1): SGD with momentum 0.9 and weight decay 0.0001, at a rate of 0.02 for 16 images, divided by 10
after 2/3 and 8/9 of the training. Judged by COCO's AP of masks. We have not trained it on COCO itself.
"""

from jaxcnn.config import default, recipes


def get_config(variant: str = ""):
    config = default()
    config.model.name = "mask_rcnn_resnet18"
    config.task.name = "instances"
    config.task.most_overlap = 0.5
    config.data.source = "coco:coco"
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
    return recipes.apply_variant(config, variant, paper=None, smoke=smoke)


def smoke(config):
    """A few steps of the small network on made-up shapes."""
    recipes.smoke_on_shapes(config)
    config.model.name = "mask_rcnn_cnn"
    config.model.width = 1 / 32
    config.schedule.name = "cosine"
    config.schedule.boundaries = ()
