"""The temperature that divides the logits of a classification, so that its probabilities are calibrated.

Guo et al. 2017, "On calibration of modern neural networks", arXiv 1706.04599.
"""

import numpy as np

from jaxcnn.tasks.task import Facts


def temperature_of(fitted: Facts) -> float:
    """The temperature that divides the logits before probabilities are reported; 1 if none was fitted.

    Also 1 if thresholds were fitted: these are for the probabilities without a temperature.
    """
    return 1.0 if "thresholds" in fitted else float(fitted.get("temperature", 1.0))


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in [0.05, 20] that divides logits [n, K] to minimise their cross-entropy with labels int [n].

    It is 1 if all answers are right: then a lower temperature is always better, and examples say nothing about it.
    """
    from scipy import optimize, special

    if (logits.argmax(-1) == labels).all():
        return 1.0
    logits = logits.astype(np.float64)

    def cross_entropy(log_temperature: float) -> float:
        log_probability = special.log_softmax(logits / np.exp(log_temperature), axis=-1)
        return -float(log_probability[np.arange(len(labels)), labels].mean())

    found = optimize.minimize_scalar(cross_entropy, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))
