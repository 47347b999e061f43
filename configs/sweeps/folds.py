"""Cross-validation of the small network on the handwritten digits, in five folds.

    python -m jaxcnn.sweep --config=configs/sweeps/folds.py --workdir=runs/folds
    python -m jaxcnn.report runs/folds

Every example validates one of five trainings. The report has the mean over the folds and its spread, for two rates.
Takes two minutes on two CPU cores. Variant: `:smoke` takes seconds.
"""

from jaxcnn.config import recipes
from jaxcnn.study import spec, sweeps


def get_config(variant: str = ""):
    config = recipes.usual("cnn", "digits")
    config.global_batch_size = 64
    config.augment.flip = "none"
    config.run.epochs = 10.0
    config.data.folds = 5
    config.data.stratify = True
    return recipes.apply_variant(config, variant, paper=None, smoke=sweeps.smoke)


def get_sweep(variant: str = ""):
    return spec.sweep(spec.product(spec.values("optim.learning_rate", [0.03, 0.1]), spec.values("data.fold", range(5))))
