"""Learning rates for a one-stage detector, with and without mosaics, on a set in COCO's form.

    python -m jaxcnn.sweep --config=configs/sweeps/detector.py --workdir=runs/detectors \
        --config.data.source=coco:data/nuclei
    python -m jaxcnn.report runs/detectors

The recipe is that of `configs/yolo_resnet18_coco.py`; trials are compared by COCO's AP on validation. The three rates
share one compiled program, and mosaics need a second one. Variant: `:smoke` takes seconds: two rates and a small
network on synthetic shapes. The six trials have not been run on a real set.
"""

from jaxcnn.config import default, recipes, recipes_of_objects
from jaxcnn.study import spec


def get_config(variant: str = ""):
    config = default()
    recipes_of_objects.one_stage(config)
    config.model.name = "yolo_resnet18"
    config.data.image_size = 512
    return recipes.apply_variant(config, variant, paper=None, smoke=smoke)


def smoke(config):
    """A few steps of the small detector on made-up shapes."""
    recipes_of_objects.smoke_on_shapes(config)
    config.model.name = "yolo_cnn"
    config.model.width = 1 / 32
    config.task.most_boxes = 4
    config.task.most_found = 20


def get_sweep(variant: str = ""):
    if variant == "smoke":
        return spec.sweep(spec.values("optim.learning_rate", [0.0, 0.01]))
    rates = spec.values("optim.learning_rate", [0.0005, 0.001, 0.002])
    return spec.sweep(spec.product(spec.values("augment.mosaic", [0.0, 0.5]), rates))
