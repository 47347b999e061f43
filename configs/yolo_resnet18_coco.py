"""A one-stage detector on ResNet18, for a set in COCO's form.

    python -m jaxcnn.main --config=configs/yolo_resnet18_coco.py --config.data.source=coco:data/nuclei

Images become squares of 512 pixels with bars (`data.resize="pad"`). The recipe is near that of RTMDet (Lyu et al. 2022,
arXiv 2212.07784, section 3): AdamW with weight decay 0.05 and a moving average, but no mosaic and mixup, and a cosine
from the end of the warm-up on, where RTMDet keeps the rate for the first half. Judged by COCO's AP. We have not trained
it on COCO itself.
"""

from jaxcnn.config import default, recipes


def get_config(variant: str = ""):
    config = default()
    config.model.name = "yolo_resnet18"
    config.task.name = "detection"
    config.data.source = "coco:coco"
    config.data.image_size = 512
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
    return recipes.apply_variant(config, variant, paper=None, smoke=recipes.smoke_on_shapes)
