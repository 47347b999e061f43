"""The training images whose features are most similar to those of an image: an answer explained by examples.

Similarity is the cosine of the features, which are the input of the layer that makes the outputs. If the nearest
training images of a wrong answer are of that wrong class, the mistake lies in the features (or in their labels); if
they are of the right one, in the classifier.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Num, UInt8

from jaxcnn.config import UserError
from jaxcnn.data.batch import Split
from jaxcnn.data.selection import name_of
from jaxcnn.explain import pictures
from jaxcnn.explain.given import Given, full_name
from jaxcnn.explain.subject import Subject
from jaxcnn.train import features, mistakes, predict

WIDTH = 40  # letters of the true answer of a training image


@dataclasses.dataclass(frozen=True)
class Alike:
    """A training image that is near an explained one.

    Attributes:
      name: name of its file, or its number in the split.
      image: as people see it, with at most `pictures.NEAR` pixels a side.
      label: its true answer in words.
      similarity: cosine of the features, in [-1, 1].
    """

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    label: str
    similarity: float


def check(subject: Subject, flag: str) -> None:
    """Refuse a network that has no features of the whole image before its outputs."""
    if subject.has_boxes or subject.has_maps:
        what = "a detector" if subject.has_boxes else "a network with a class for each pixel"
        raise UserError(f"{flag}: {what} has no features of the whole image before its outputs")


def nearest(subject: Subject, given: Given, count: int, most: int, seed: int) -> list[list[Alike]]:
    """The nearest training images of each image, the nearest first; an image is not its own neighbour.

    Args:
      subject: the network.
      given: the images.
      count: number of neighbours of each image.
      most: training images that are looked at; random ones if there are more.
      seed: seed of this random choice.

    Raises:
      UserError: the data of the run is not there, or the network has no such features.
    """
    check(subject, "--neighbours")
    split, trained = subject.splits.train, subject.trained
    places = np.sort(np.random.Generator(np.random.PCG64(seed)).permutation(len(split))[:most])
    among = features.of_split(trained, split, places=places)
    named: dict[str, list[int]] = {}
    for row, place in enumerate(places):
        named.setdefault(full_name(split, int(place)), []).append(row)
    of_parts = [features.of_pixels(trained, given.read(rows)) for rows in given.parts(predict.BATCH)]
    own_features = np.concatenate(of_parts)
    itself = [named.get(name, []) for name in given.names]
    found = features.nearest(own_features, among.values, count, itself)
    targets, names = trained.spec.task.targets, subject.class_names
    made = []
    for rows, each in zip(*found, strict=True):
        own = targets.whole(jax.tree.map(lambda leaf, rows=rows: np.asarray(leaf)[rows], among.targets))
        words = targets.captions(own, names, WIDTH)
        pixels: Num[np.ndarray, "k h w c"] = _read(split, places[rows])
        images = [pictures.at_most(image, pictures.NEAR) for image in mistakes.as_rgb(pixels)]
        told = zip(rows, images, words, each, strict=True)
        made.append(
            [Alike(name_of(split, int(places[k])), image, word, float(value)) for k, image, word, value in told]
        )
    return made


def _read(split: Split, places: np.ndarray) -> Num[np.ndarray, "k h w c"]:
    """Examples in the order of `places`, which need not rise; sources read rising ones."""
    order = places.argsort()
    pixels = split.read(places[order])
    return pixels[order.argsort()]
