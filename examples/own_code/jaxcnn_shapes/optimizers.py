"""An optimiser of one's own; those of optax need no package: "optax:lion(b1=0.95)"."""

import optax


def signsgd(learning_rate):
    """Steps of equal size in the direction of the gradient's signs: Bernstein et al. 2018, arXiv 1802.04434."""
    return optax.chain(optax.scale_by_sign(), optax.scale_by_learning_rate(learning_rate))
