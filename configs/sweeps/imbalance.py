"""Five ways to train with few examples of one class, on X-ray images of the lungs, three seeds each.

    python -m jaxcnn.sweep --config=configs/sweeps/imbalance.py --workdir=runs/imbalance \
        --config.data.source=npz:pneumoniamnist_full.npz
    python -m jaxcnn.report runs/imbalance

The set is that of `configs/tasks/imbalance.py`: nothing done, class weights, focal loss, logit adjustment, balanced
sampling. The report has balanced accuracy and AUROC beside the accuracy. Takes a quarter of an hour on two CPU cores.
Variant: `:smoke` takes seconds, on the handwritten digits.
"""

from typing import Any

from jaxcnn.config import recipes
from jaxcnn.study import spec, sweeps


def get_config(variant: str = ""):
    config = recipes.usual("cnn", "npz:pneumoniamnist_full.npz")
    config.augment.crop_padding = 3
    config.run.epochs = 10.0
    config.optim.learning_rate = 0.05
    config.optim.ema_decay = 0.99
    return recipes.apply_variant(config, variant, paper=None, smoke=sweeps.smoke)


def get_sweep(variant: str = ""):
    ways: list[dict[str, Any]] = [
        {"task.class_weights": "none"},
        {"task.class_weights": "auto"},
        {"task.focal_gamma": 2.0},
        {"task.logit_adjustment": 1.0},
        {"data.sampling": "balanced"},
    ]
    return spec.sweep(spec.rows(ways), seeds=1 if variant == "smoke" else 3)
