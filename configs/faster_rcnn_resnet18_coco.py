"""Faster R-CNN on ResNet18, for a set in COCO's form.

    python -m jaxcnn.main --config=configs/faster_rcnn_resnet18_coco.py --config.data.source=coco:data/nuclei

Images become squares of 512 pixels with bars (`data.resize="pad"`). The recipe is that of Lin et al. 2017 (arXiv
1612.03144, section 5) in the 12 epochs that are usual since: SGD with momentum 0.9 and weight decay 0.0001, at a rate
of 0.02 for 16 images, divided by 10 after 2/3 and 8/9 of the training. Judged by COCO's AP of boxes. We have not
trained it on COCO itself.
"""

from jaxcnn.config import default, recipes, recipes_of_objects


def get_config(variant: str = ""):
    config = default()
    config.model.name = "faster_rcnn_resnet18"
    config.task.name = "detection"
    config.data.source = "coco:coco"
    recipes_of_objects.two_stages(config)
    return recipes.apply_variant(config, variant, paper=None, smoke=smoke)


def smoke(config):
    """A few steps of the small network on made-up shapes."""
    recipes_of_objects.smoke_of_two_stages(config)
    config.model.name = "faster_rcnn_cnn"
