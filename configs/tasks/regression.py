"""Numbers instead of classes: how many nuclei a microscope image shows.

    python -m jaxcnn.main --config=configs/tasks/regression.py --config.data.source=npz:nuclei.npz

The labels are numbers, [N] or [N, K] (`docs/tasks.md` makes the file). Judged by the mean absolute error.
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    config = recipes.usual("cnn", "npz:nuclei.npz")
    config.task.name = "regression"
    config.global_batch_size = 32
    config.augment.crop = "none"
    config.optim.learning_rate = 0.02
    config.optim.ema_decay = 0.99
    config.run.epochs = 60.0
    return recipes.apply_variant(config, variant, paper=None, smoke=None)
