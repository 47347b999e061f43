"""Figures of one's own."""

import numpy as np


def kappa(outputs, targets):
    """Cohen's kappa: agreement with the labels beyond chance (Cohen 1960).

    Args:
      outputs: logits float32 [N, K] of a whole split.
      targets: one-hot labels float32 [N, K].

    Returns:
      Figures by name; they are reported beside the accuracy.
    """
    guesses, labels = outputs.argmax(axis=-1), targets.argmax(axis=-1)
    agreement = np.mean(guesses == labels)
    classes = range(targets.shape[-1])
    chance = sum(np.mean(guesses == k) * np.mean(labels == k) for k in classes)
    return {"kappa": (agreement - chance) / (1.0 - chance) if chance < 1.0 else 0.0}
