"""Few examples of some classes: pneumonia in X-ray images of children, 1,214 without against 3,494 with.

    python -m jaxcnn.main --config=configs/tasks/imbalance.py --config.data.source=npz:pneumoniamnist_full.npz

The set is PneumoniaMNIST (https://medmnist.com, CC BY 4.0). Classes are weighted by their inverse frequency; other ways
are `task.focal_gamma`, `task.logit_adjustment` and `data.sampling`. See balanced accuracy, recall and AUROC.
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    config = recipes.usual("cnn", "npz:pneumoniamnist_full.npz")
    config.task.class_weights = "auto"
    config.augment.crop_padding = 3
    config.run.epochs = 20.0
    config.optim.learning_rate = 0.05
    config.optim.ema_decay = 0.99
    return recipes.apply_variant(config, variant, paper=None, smoke=None)
