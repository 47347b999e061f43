"""YOLOX-s, for a set in COCO's form, from random weights or from those of a file of YOLOX.

    python -m jaxcnn.main --config=configs/yolox_s_coco.py --config.data.source=coco:data/nuclei \\
        --config.init.source=file:yolox_s.safetensors

`--config.model.name` chooses another size: yolox_tiny (416 pixels in its paper), yolox_m, yolox_l, yolox_x. Epsilon and
momentum of BatchNorm, the images from 0 to 255 and their size are those of YOLOX (Ge et al. 2021, arXiv 2107.08430).
The rest is the recipe of `configs/yolo_resnet18_coco.py`: no mosaic and mixup, and AdamW in place of SGD. Judged by
COCO's AP. We have not trained it on COCO itself.
"""

from jaxcnn.config import default, recipes


def get_config(variant: str = ""):
    config = default()
    config.model.name = "yolox_s"
    config.norm.epsilon = 1e-3
    config.norm.momentum = 0.97
    config.task.name = "detection"
    config.data.source = "coco:coco"
    config.data.image_size = 640
    config.data.resize = "pad"
    config.global_batch_size = 16
    config.augment.normalize_by = "given"
    config.augment.mean = (0.0, 0.0, 0.0)
    config.augment.std = (1 / 255, 1 / 255, 1 / 255)
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
