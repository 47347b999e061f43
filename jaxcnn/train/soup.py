"""Averages of the weights of several runs of one network, for a start (`config.init.source="workdirs:…"`).

Uniform and greedy soups: Wortsman et al., "Model soups", 2022, arXiv:2203.05482, section 2. The line between an initial
and a fine-tuned network: Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT), 2022, arXiv:2109.01903.
Running statistics of BatchNorm are averaged as the weights are.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxcnn.config import UserError
from jaxcnn.data.batch import Split
from jaxcnn.data.source import Splits
from jaxcnn.train import same_data, same_network, seals, workdir
from jaxcnn.train.trained import Trained

Arrays = Mapping[str, np.ndarray]
Mix = tuple[dict[str, np.ndarray], list[str]]
POINTS = 11  # points on the line, including both ends


def mixed(
    names: Sequence[str], networks: Sequence[Trained], arrays: Sequence[Arrays], way: str, val: Split | None
) -> Mix:
    """The average of the weights of runs, and lines that tell how it was chosen.

    Args:
      names: names of the runs, for messages.
      networks: networks of the runs; the first one evaluates.
      arrays: weights of the runs, with the same keys.
      way: "uniform", the mean of all; "greedy", the mean of those that, taken in the order of their own figures, make
        it no worse on validation; "line", of two runs, the best point on the line between them, by tenths.
      val: the validation split that decides; only "uniform" needs none.

    Raises:
      UserError: the runs do not have the same arrays, classes and normalisation, or there is no validation split.
    """
    for name, network, own in zip(names[1:], networks[1:], arrays[1:], strict=True):
        if {key: value.shape for key, value in own.items()} != {key: value.shape for key, value in arrays[0].items()}:
            raise UserError(f"config.init.source: {name} has other arrays than {names[0]}; only equal networks mix")
        first = networks[0]
        same_network.check_equal(name, network.config, names[0], first.config)
        if network.class_names != first.class_names:
            raise UserError(f"config.init.source: {name} has other classes than {names[0]}; only equal networks mix")
        pairs = ((network.constants.mean, first.constants.mean), (network.constants.std, first.constants.std))
        if not all(np.array_equal(one, other) for one, other in pairs):
            raise UserError(
                f"config.init.source: {name} normalises images otherwise than {names[0]}; train it with "
                "config.augment.normalize_by='given' and the same mean and std"
            )
    if way == "uniform":
        return _mean(arrays), [f"the mean of the weights of {len(arrays)} runs"]
    if val is None:
        raise UserError(f"config.init.average={way!r} decides on validation, which config.data.protocol='full' lacks")
    if val.class_names != networks[0].class_names or val.image_shape != networks[0].spec.image_shape:
        raise UserError(f"{val.description} does not have the classes and image size that {names[0]} was trained with")

    def figure(of: Arrays) -> float:
        return evaluated(networks[0], of, val)

    return _greedy(names, networks[0], arrays, figure) if way == "greedy" else _line(networks[0], arrays, figure)


def check_unseen(folder: pathlib.Path, way: str, splits: Splits) -> None:
    """Refuse a run that may have trained on the validation split, on which "greedy" and "line" decide.

    Args:
      folder: the workdir of the run.
      way: `config.init.average`.
      splits: the splits of the run that starts from the average.
    """
    facts = workdir.read_data_facts(folder)
    if way != "uniform" and splits.val is not None and same_data.may_have_learnt(facts, workdir.data_facts(splits)):
        raise UserError(
            f"config.init.average={way!r} decides on validation, and {folder} may have learnt from these images: its "
            "validation split is another one. Set config.data as it has it (split_seed, val_examples, stratify, fold, "
            "val_split, protocol), or --config.init.average=uniform"
        )


def _greedy(names: Sequence[str], network: Trained, arrays: Sequence[Arrays], figure: Callable[[Arrays], float]) -> Mix:
    headline = network.spec.task.evaluation.headline
    own = [headline.score(figure(each)) for each in arrays]
    order = sorted(range(len(arrays)), key=lambda k: -headline.rank(own[k]))
    chosen, best = order[:1], headline.rank(own[order[0]])
    lines = [f"{names[order[0]]}: {headline.shown(headline.value(best))} on validation, taken"]
    for k in order[1:]:
        together = headline.score(figure(_mean([arrays[j] for j in (*chosen, k)])))
        taken = headline.rank(together) >= best
        lines.append(
            f"{names[k]}: {headline.shown(headline.value(own[k]))}, with those before "
            f"{headline.shown(headline.value(together))}, {'taken' if taken else 'left out'}"
        )
        if taken:
            chosen, best = [*chosen, k], together
    return _mean([arrays[k] for k in chosen]), lines


def _line(network: Trained, arrays: Sequence[Arrays], figure: Callable[[Arrays], float]) -> Mix:
    headline = network.spec.task.evaluation.headline
    shares = [number / (POINTS - 1) for number in range(POINTS)]
    one, other = arrays
    found = [figure(between(one, other, share)) for share in shares]
    best = max(
        range(POINTS), key=lambda k: headline.rank(headline.score(found[k]))
    )  # of equal ones, the nearest to the first run
    told = ", ".join(f"{share:g}: {headline.shown(value)}" for share, value in zip(shares, found, strict=True))
    return between(one, other, shares[best]), [
        f"share of the second run {shares[best]:g}, the best on validation among {told}"
    ]


def between(one: Arrays, other: Arrays, share: float) -> dict[str, np.ndarray]:
    """The arrays at a share of the way from one run to the other; both ends are exact."""
    return {key: _line_of(one[key], other[key], share) for key in one}


def _line_of(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    return ((1 - share) * one.astype(np.float64) + share * other.astype(np.float64)).astype(one.dtype)


def _mean(arrays: Sequence[Arrays]) -> dict[str, np.ndarray]:
    return {
        key: np.mean([each[key] for each in arrays], axis=0, dtype=np.float64).astype(value.dtype)
        for key, value in arrays[0].items()
    }


def evaluated(network: Trained, arrays: Arrays, split: Split) -> float:
    """The headline figure of a network with other weights on a split."""

    variables = seals.replaced(network.variables, arrays)
    figures = dataclasses.replace(network, variables=variables, fitted={}).evaluate(split)
    return float(figures[network.spec.task.evaluation.headline.name])
