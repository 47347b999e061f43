"""94 % on CIFAR-10 in ten epochs: the recipe of airbench94_muon (Jordan 2024, arXiv:2404.00498, and its successor).

    python -m jaxcnn.main --config=configs/speedrun_cifar10.py

Its author reports 94.01 % test accuracy with test-time augmentation in eight epochs (mean of 200 seeds), so half of the
seeds stay below 94 %; two more epochs should bring nearly all above. `--config.run.epochs=8` is the published length.
Our results: see `results/README.md`. Trains on the whole training split (protocol=full), without validation.

Parts of the recipe: patch whitening from the data (`models/whitening.py`), partial-identity initialisation, a scaled
classifier (`models/airbench.py`), Muon on renormalised kernels (`learn/muon.py`), alternating flip
(`data/augment.py`), test-time augmentation (`learn/tta.py`), a linear schedule, label smoothing.

Differences from airbench94_muon ("there"):
- computes in float32; there in float16, and in bfloat16 within Muon (`:gpu` computes in bfloat16, and Muon in float32);
- the loss is the batch's mean; there its sum: factors below convert the rates exactly, and Muon ignores the scale;
- pixels are normalised by the set's own mean and standard deviation, equal to the constants there to four digits;
- whitening uses the first 5000 images in the order of the data source;
- an example is flipped after its crop; there before it: the distribution is the same.

Variants: `:gpu` computes in bfloat16, `:smoke` is the same code path in seconds.
"""

from jaxcnn.config import recipes


def get_config(variant: str = ""):
    return recipes.apply_speedrun_variant(recipes.speedrun("tfds:cifar10"), variant)
