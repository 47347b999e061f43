"""The pairs of classes that a network confuses most, with maps for its answer and for the true class."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from jaxcnn.config import UserError
from jaxcnn.explain.given import at_random, full_name
from jaxcnn.explain.subject import Subject
from jaxcnn.tasks.confusion import Confusion
from jaxcnn.train import mistakes, predict

PAIRS, EACH = 4, 3
MOST = 20_000  # images of the split that are looked at


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An image of a pair.

    Attributes:
      name: its split, and its file or number there.
      image: as people see it.
      probability: probability of the answer.
      of_label: the probability of the true class.
      for_answer: the map of what speaks for the answer.
      for_label: the map of what speaks for the true class.
    """

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    probability: float
    of_label: float
    for_answer: Float[np.ndarray, "h w"]
    for_label: Float[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A class that is taken for another.

    Attributes:
      label, answer: numbers of the true class and of the one that was answered.
      count: how often.
      examples: images of the true class that were looked at.
      shown: its most confident mistakes, the most confident first.
    """

    label: int
    answer: int
    count: int
    examples: int
    shown: list[Mistake]


def of_split(
    subject: Subject, name: str, method: str, *, pairs: int = PAIRS, each: int = EACH, most: int = MOST, seed: int = 0
) -> tuple[list[Pair], int]:
    """The most frequent confusions in a split of the run's data, and how many images were looked at.

    Args:
      subject: the network.
      name: name of the split.
      method: method of the maps, with its default options.
      pairs: number of pairs; fewer if fewer classes are confused.
      each: number of images of each pair.
      most: most images that are looked at; random ones if the split has more.
      seed: seed of this random choice.

    Raises:
      UserError: the task has no single class for an image, the run has no such split, or its data is not there.
    """
    trained = subject.trained
    if trained.config.task.name != "classification":
        raise UserError(f"config.task.name={trained.config.task.name!r} has no pairs of classes that are confused")
    split = getattr(subject.splits, name)
    if split is None:
        raise UserError(f"this run has no {name} split")
    chosen = at_random(subject, split, most, seed)
    starts = range(0, len(chosen), predict.BATCH)
    parts = [predict.outputs_of(trained, split.read(chosen[k : k + predict.BATCH])) for k in starts]
    outputs = np.concatenate(parts).astype(np.float64)
    labels, answers = np.asarray(split.targets)[chosen], outputs.argmax(1)
    probability = np.asarray(subject.probability(outputs))
    confusion = Confusion.of(labels, answers, len(subject.class_names))
    wrong = np.flatnonzero(confusion.true != confusion.predicted)
    often = wrong[np.argsort(-confusion.counts[wrong], kind="stable")][:pairs]
    places = []
    for cell in often:
        among = np.flatnonzero((labels == confusion.true[cell]) & (answers == confusion.predicted[cell]))
        sure = np.argsort(-probability[among, confusion.predicted[cell]], kind="stable")
        places.append(among[sure[:each]])
    if not places:
        return [], len(chosen)
    every = np.unique(np.concatenate(places))  # sources read rising indices
    pixels = split.read(chosen[every])
    images = subject.normalised(pixels)
    for_answer, for_label = (
        subject.explain(method, images, target[every].astype(np.int32)).maps for target in (answers, labels)
    )
    rgb = mistakes.as_rgb(pixels)

    def shown(place: int) -> Mistake:
        row = int(np.searchsorted(every, place))
        return Mistake(
            full_name(split, int(chosen[place])),
            rgb[row],
            float(probability[place, answers[place]]),
            float(probability[place, labels[place]]),
            for_answer[row],
            for_label[row],
        )

    found = []
    for cell, of_pair in zip(often, places, strict=True):
        label, answer = int(confusion.true[cell]), int(confusion.predicted[cell])
        counts = int(confusion.counts[cell]), int(confusion.totals[label])
        found.append(Pair(label, answer, *counts, [shown(int(place)) for place in of_pair]))
    return found, len(chosen)
