"""75 % on CIFAR-100 in a short time: the recipe of `speedrun_cifar10.py` with a residual network and growing images.

    python -m jaxcnn.main --config=configs/speedrun_cifar100.py

Our result: 75.36 %, and 76.90 % with test-time augmentation; see `results/README.md`. Trains on the whole training
split (protocol=full), without validation.

A hundred classes of 500 images need a wider and deeper network than ten of 5000: `airbench_residual` has 768 channels
before its classifier, where images are small and channels are cheap. Its form, the image sides (20 pixels for 15 % of
the steps, 24 up to half of them), the batch of about 1000 with Muon's rate of 0.18, and the label smoothing are from
NAVIER-STOKED, who report 75.19 % in 8.75 epochs and 75.8 % in ten, without test-time augmentation
(https://github.com/AIDDA-Institute/CIFAR-100-speedrun, 2026). Differences: GELU instead of SiLU, and the rate rises
over a fifth of the run instead of a quarter. Momentum, the rate of the biases and the order of image operations are as
in `speedrun_cifar10.py`.

The classifier's rate has no counterpart there, because here its inputs are divided by their number: 6 is the best of
three values tried (see `results/README.md`).

Variants: `:gpu` computes in bfloat16, `:smoke` is the same code path in seconds.
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    return recipes.apply_speedrun_variant(recipes.speedrun_cifar100("tfds:cifar100"), variant)
