"""Outputs whose probabilities are the mean of the probabilities of several networks: deep ensembles.

Lakshminarayanan et al. 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles",
arXiv:1612.01474, section 2.4.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Averaged = Callable[[Sequence[np.ndarray]], np.ndarray]


def of(evaluation: Any) -> Averaged | None:
    """How an evaluation averages: from several outputs [n, k] to those whose probabilities are the mean of theirs.

    None if its outputs give no probabilities that could be averaged.
    """
    return getattr(evaluation, "averaged", None)


def of_softmax(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """The logarithms, float32 [n, k], of the mean softmax of several logits [n, k]."""
    from scipy.special import log_softmax

    return _log_mean([log_softmax(each.astype(np.float64), axis=-1) for each in outputs]).astype(np.float32)


def of_sigmoid(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """The logits, float32 [n, k], of the mean sigmoid of several logits [n, k]."""
    from scipy.special import log_expit

    whole = [each.astype(np.float64) for each in outputs]
    present, absent = (_log_mean([log_expit(sign * each) for each in whole]) for sign in (1, -1))
    return (present - absent).astype(np.float32)


def _log_mean(logs: Sequence[np.ndarray]) -> np.ndarray:
    """The logarithm of the mean of numbers with these logarithms, which may be too small for float64 themselves."""
    found: np.ndarray = np.logaddexp.reduce(np.stack(logs), axis=0) - np.log(len(logs))
    return found
