"""Several labels for each image: superclass and class of CIFAR-100, by one small network.

    python -m jaxcnn.main --config=configs/tasks/multilabel.py --config.data.source=npz:cifar100_labels.npz

The labels are columns of 0 and 1 (`docs/tasks.md` makes the file in a few lines). Judged by mean average precision.
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    config = recipes.usual("cnn", "npz:cifar100_labels.npz")
    config.task.name = "multilabel"
    config.optim.learning_rate = 2.0  # the loss is a mean over 120 classes, and so are its gradients
    config.run.epochs = 20.0
    config.optim.ema_decay = 0.99
    return recipes.apply_variant(config, variant, paper=None, smoke=None)
