"""A one-stage detector on ResNet18, for a set in COCO's form.

    python -m jaxcnn.main --config=configs/yolo_resnet18_coco.py --config.data.source=coco:data/nuclei

Images become squares of 512 pixels with bars (`data.resize="pad"`). The recipe is near that of RTMDet (Lyu et al. 2022,
arXiv 2212.07784, section 3): AdamW with weight decay 0.05 and a moving average, but no mosaic and mixup, and a cosine
from the end of the warm-up on, where RTMDet keeps the rate for the first half. Judged by COCO's AP. We have not trained
it on COCO itself.
"""

from jaxcnn.config import default, recipes, recipes_of_objects


def get_config(variant: str = ""):
    config = default()
    recipes_of_objects.one_stage(config)
    config.model.name = "yolo_resnet18"
    config.data.image_size = 512
    return recipes.apply_variant(config, variant, paper=None, smoke=recipes_of_objects.smoke_on_shapes)
