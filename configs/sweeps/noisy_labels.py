"""Five ways to train with labels of which some are wrong: CIFAR-10 as people labelled it once more, three seeds.

    python -m jaxcnn.sweep --config=configs/sweeps/noisy_labels.py --workdir=runs/noisy_labels \
        --config.data.source=npz:cifar10n.npz
    python -m jaxcnn.report runs/noisy_labels

CIFAR-10N's "worse" labels (Wei et al. 2022, arXiv 2110.12088), of which 40 % are wrong, for training and validation;
the test split has the right ones (`docs/tasks.md` makes the file). Nothing done, label smoothing, mixup, generalised
cross-entropy with the exponent of its paper (0.7) and a lower one. Variant: `:smoke` takes seconds, on the handwritten
digits.
"""

from typing import Any

from jaxcnn.config import recipes
from jaxcnn.study import spec, sweeps


def get_config(variant: str = ""):
    config = recipes.usual("cnn", "npz:cifar10n.npz")
    config.run.epochs = 10.0
    config.optim.learning_rate = 0.05
    config.optim.ema_decay = 0.99
    return recipes.apply_variant(config, variant, paper=None, smoke=sweeps.smoke)


def get_sweep(variant: str = ""):
    ways: list[dict[str, Any]] = [
        {"optim.label_smoothing": 0.0},
        {"optim.label_smoothing": 0.2},
        {"augment.mixup": 1.0},
        {"task.generalized_q": 0.4},
        {"task.generalized_q": 0.7},
    ]
    return spec.sweep(spec.rows(ways), seeds=1 if variant == "smoke" else 3)
