"""YOLOX-s, for a set in COCO's form, from random weights or from those of a file of YOLOX.

    python -m jaxcnn.main --config=configs/yolox_s_coco.py --config.data.source=coco:data/nuclei \\
        --config.init.source=file:yolox_s.safetensors

`--config.model.name` chooses another size: yolox_tiny (416 pixels in its paper), yolox_m, yolox_l, yolox_x. Epsilon and
momentum of BatchNorm, the images from 0 to 255 and their size are those of YOLOX (Ge et al. 2021, arXiv 2107.08430).
The rest is the recipe of `configs/yolo_resnet18_coco.py`: no mosaic and mixup, and AdamW in place of SGD. Judged by
COCO's AP. We have not trained it on COCO itself.
"""

from jaxcnn.config import default, recipes, recipes_of_objects


def get_config(variant: str = ""):
    config = default()
    recipes_of_objects.one_stage(config)
    config.model.name = "yolox_s"
    config.data.image_size = 640
    config.norm.epsilon = 1e-3
    config.norm.momentum = 0.97
    config.augment.normalize_by = "given"
    config.augment.mean = (0.0, 0.0, 0.0)
    config.augment.std = (1 / 255, 1 / 255, 1 / 255)
    return recipes.apply_variant(config, variant, paper=None, smoke=recipes_of_objects.smoke_on_shapes)
