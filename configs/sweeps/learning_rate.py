"""Learning rates for AlexNet on CIFAR-10: one compiled program, since the rate is an input of the step.

    python -m jaxcnn.sweep --config=configs/sweeps/learning_rate.py --workdir=runs/rates

Eight rates in a list; with `:random`, sixteen randomly drawn pairs of rate and weight decay.

Variants: `:random`, see above; `:smoke` takes seconds, on the handwritten digits; `:short` is timed by
`python -m benchmarks.sweep`.
"""

from jaxcnn.config import recipes
from jaxcnn.study import spec, sweeps


def get_config(variant: str = ""):
    config = recipes.usual("alexnet", "tfds:cifar10")
    config.model.dropout = 0.2
    config.run.epochs = 30.0
    return recipes.apply_variant(config, variant, paper=None, smoke=sweeps.smoke, short=short, random=as_it_is)


def as_it_is(config):
    """The unchanged config: only the sweep differs."""


def short(config):
    """Half the width, 300 steps per trial; evaluation is small, so that the steps determine the time."""
    config.model.width = 0.5
    config.run.epochs = 0.0
    config.run.steps = 300
    config.run.eval_batch_size = 250
    config.run.tensorboard = False
    config.data.val_examples = 250
    config.data.test_split = "test[:250]"
    config.schedule.warmup = 0.0


def get_sweep(variant: str = ""):
    if variant == "random":
        rates = spec.log_uniform("optim.learning_rate", 0.0005, 0.064)
        return spec.sweep(spec.product(rates, spec.log_uniform("optim.weight_decay", 1e-5, 1e-2)), trials=16)
    return spec.sweep(spec.values("optim.learning_rate", [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064]))
