"""Does an explanation depend on what the network has learnt? Its layers are drawn anew, and the maps are compared.

Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv:1810.03292. A method whose maps hardly change when the
weights do, explains the image and the architecture, and not the network.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy import stats

from jaxcnn.explain import inside
from jaxcnn.explain.network import Network

Maps = Float[np.ndarray, "n h w"]
Explain = Callable[[Network], Maps]


@dataclasses.dataclass(frozen=True)
class Stage:
    """The maps of a network with random layers, compared with those of the trained one.

    Attributes:
      layer: the layer that was drawn anew: alone, or in a cascade as the last of all those above it.
      similarity: Spearman's rank correlation of the absolute values of each image's map, [n]; 0 for a constant map.
    """

    layer: str
    similarity: Float[np.ndarray, " n"]


def layers_from_the_top(network: Network, image_shape: tuple[int, int, int]) -> list[str]:
    """The parts of the network at its top level, such as "block4_3", from the outputs to the images."""
    paths = inside.order_of_use(network.apply, network.variables, image_shape)
    return list(dict.fromkeys(path.partition("/")[0] for path in paths))[::-1]


def cascading(
    network: Network,
    initial: Any,
    layers: Sequence[str],
    explain: Callable[[Network], Maps],
    before: Maps | None = None,
) -> Iterator[Stage]:
    """Draw the layers anew one after the other, from the first of `layers` on; each stays random.

    Args:
      network: with trained variables.
      initial: variables drawn anew, with running statistics of BatchNorm as at the start, so that none is negative.
      layers: names, the top one first.
      explain: the maps of a network.
      before: the maps of `network`; None: `explain` makes them.
    """
    before = explain(network) if before is None else before
    for end in range(1, len(layers) + 1):
        maps = explain(network.with_variables(mixed(network.variables, initial, layers[:end])))
        yield Stage(layers[end - 1], similarity(before, maps))


def independent(
    network: Network,
    initial: Any,
    layers: Sequence[str],
    explain: Callable[[Network], Maps],
    before: Maps | None = None,
    first: Stage | None = None,
) -> Iterator[Stage]:
    """Draw one layer anew at a time; arguments as for `cascading`, whose `first` stage is the first one here, too."""
    before = explain(network) if before is None else before
    if first is not None:
        yield first
    for layer in layers[first is not None :]:
        maps = explain(network.with_variables(mixed(network.variables, initial, [layer])))
        yield Stage(layer, similarity(before, maps))


def mixed(trained: Any, initial: Any, layers: Sequence[str]) -> Any:
    """The trained variables, with those of some layers as in `initial`: all collections, BatchNorm's too."""

    leaves, structure = jax.tree.flatten(trained)
    each = zip(inside.paths_of(trained), leaves, jax.tree.leaves(initial), strict=True)
    return jax.tree.unflatten(structure, [drawn if path and path[0] in layers else leaf for path, leaf, drawn in each])


def similarity(before: Maps, after: Maps) -> Float[np.ndarray, " n"]:
    """Spearman's rank correlation of the absolute values of two maps of each image; 0 if one is constant."""
    found = np.zeros(len(before))
    for number, pair in enumerate(zip(np.abs(before), np.abs(after), strict=True)):
        ranks = [stats.rankdata(each.ravel()) - (each.size + 1) / 2 for each in pair]
        length = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
        found[number] = ranks[0] @ ranks[1] / length if length else 0
    return found
