"""Test-time augmentation: the logits of an image, averaged over a few views of it.

The views and weights of "flip_translate" are those of airbench94 (Jordan 2024, arXiv:2404.00498).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float32, Shaped

Images = Shaped[Array, "b h w c"]  # images of any type
Logits = Float32[Array, "b k"]


class View(NamedTuple):
    """A view of an image: whether it is mirrored left to right, its shift in pixels, and its weight in the mean."""

    mirrored: bool
    shift: int  # down and to the right, pixels; gaps are filled by reflection
    weight: float


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(False, 0, 1.0),),
    "flip": (View(False, 0, 0.5), View(True, 0, 0.5)),
    "flip_translate": (
        View(False, 0, 0.25),
        View(True, 0, 0.25),
        View(False, 1, 0.125),
        View(True, 1, 0.125),
        View(False, -1, 0.125),
        View(True, -1, 0.125),
    ),
}


def views(image: Images, kind: str) -> list[Images]:
    """The views of images; the first view is the unchanged images."""
    return [_view(image, view) for view in VIEWS[kind]]


def average(logits: Sequence[Logits], kind: str) -> Logits:
    """The weighted mean of the logits of each of the `views`."""
    return sum((view.weight * one for view, one in zip(VIEWS[kind], logits, strict=True)), jnp.zeros(()))


def predict(network: Callable[[Images], Logits], image: Images, kind: str) -> Logits:
    """Averaged logits of images, from a `network` that maps images to logits."""
    return average([network(view) for view in views(image, kind)], kind)


def chosen(examples: int, share: float) -> int:
    """The number of images that get the views, for `config.run.tta_share`."""
    return max(1, math.ceil(round(share * examples, 6)))  # a share is above 0


def described(kind: str, share: float) -> str:
    """The kind of test-time augmentation, with the share of images that gets it unless all do."""
    return kind if share == 1 else f"{kind} of the least sure {100 * share:g}% of images"


def _view(image: Images, view: View) -> Images:
    if view.shift:
        height, width = image.shape[1:3]
        size = abs(view.shift)
        padded = jnp.pad(image, ((0, 0), (size, size), (size, size), (0, 0)), mode="reflect")
        start = size - view.shift
        image = padded[:, start : start + height, start : start + width]
    return image[:, :, ::-1] if view.mirrored else image
