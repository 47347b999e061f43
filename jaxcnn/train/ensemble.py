"""Several trained networks that answer together: the mean of their probabilities, each with its own temperature."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Num

from jaxcnn.config import UserError
from jaxcnn.data import selection
from jaxcnn.data.batch import Split
from jaxcnn.tasks import averaging, by_group
from jaxcnn.tasks import kept as keeping
from jaxcnn.tasks.temperature import temperature_of
from jaxcnn.text import counted
from jaxcnn.train import predict, same_data, workdir
from jaxcnn.train.trained import Trained


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Trained networks of one task with the same classes and images. `of` checks this.

    Attributes:
      folders: their workdirs.
      members: the networks, in the same order; the first one's config says how images are read.
    """

    folders: tuple[pathlib.Path, ...]
    members: tuple[Trained, ...]

    def outputs(self, images: Num[np.ndarray, "n h w c"]) -> np.ndarray:
        """The outputs float32 [n, K] of at most `predict.BATCH` images, whose probabilities are the mean."""
        return self._averaged([predict.outputs_of(member, images) for member in self.members])

    def answers(self, images: Num[np.ndarray, "n h w c"]) -> list[dict[str, Any]]:
        """The answer of the task for each image, as from `predict.answers`.

        Classes of a multi-label task count as predicted from a probability of 0.5.
        """
        first = self.members[0]
        return first.spec.task.evaluation.answers(self.outputs(images), first.class_names, first.constants, {})

    def evaluate(self, split: Split, batch_size: int = 0) -> dict[str, Any]:
        """The figures of the ensemble on a split; "members" has the folder, step and figures of each network.

        Each network is evaluated as it would be alone (`Trained.evaluate`). Test-time augmentation and thresholds that
        were chosen on validation are those of single networks: they count among the members' figures alone.

        Args:
          split: the split, whose targets `check_split` has compared with those of the runs.
          batch_size: examples per batch; 0: the batch size of each network's training.

        Raises:
          UserError: the split has too many outputs to keep.
        """
        first = self.members[0]
        task = first.spec.task
        if not keeping.fits(task, len(split)):
            raise UserError(f"{split.description} has too many outputs for an ensemble; evaluate the runs one by one")
        outputs: list[np.ndarray] = []
        alone: list[dict[str, Any]] = []
        target: Any = None
        for folder, member in zip(self.folders, self.members, strict=True):
            # Their figures are those of the first network's evaluation, as another figure may decide in the others.
            kept = keeping.of(dataclasses.replace(member.spec.task, evaluation=task.evaluation), member.constants)
            figures = member.evaluate(split, batch_size, kept)
            alone.append({"workdir": str(folder), "step": member.step, "weights": member.weights, **_single(figures)})
            whole = kept.whole()
            assert whole is not None  # they fit
            outputs.append(whole[0])
            target = whole[1]
        together = self._averaged(outputs)
        groups = selection.groups_of(split)
        collector = by_group.grouped(
            task.evaluation.collector(first.constants), task, first.constants, groups, first.config.data.group
        )
        collector.add(together, target)
        means = by_group.of_each(task, together, target, first.constants)
        return {
            "split": split.name,
            "data": split.description,
            "examples": len(split),
            **{name: float(values.mean()) for name, values in means.items()},
            **collector.figures(first.class_names, {}),
            "members": alone,
        }

    def describe(self, figures: dict[str, Any]) -> list[str]:
        """The figures as lines of text: those of the ensemble, and a line for each network alone."""
        evaluation = self.members[0].spec.task.evaluation
        headline = evaluation.headline
        lines = [
            f"{figures['data']}: {counted(figures['examples'], 'example')}, mean of the probabilities of "
            f"{counted(len(self.members), 'network')}",
            *evaluation.describe(figures),
            *by_group.describe(figures, headline),
        ]
        for one in figures["members"]:
            lines.append(
                f"alone: {headline.label} {headline.shown(one[headline.name])}  loss {one['loss']:.4f}  "
                f"({one['workdir']}, step {one['step']}, {one['weights']} weights)"
            )
        values = [one[headline.name] for one in figures["members"]]
        together, mean = headline.shown(figures[headline.name]), headline.shown(float(np.mean(values)))
        return [*lines, f"together: {headline.label} {together}; mean of the networks alone {mean}"]

    def _averaged(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        averaged = averaging.of(self.members[0].spec.task.evaluation)
        assert averaged is not None  # by `of`
        return averaged(
            [
                each / np.float32(temperature_of(member.fitted))
                for member, each in zip(self.members, outputs, strict=True)
            ]
        )


def of(folders: Sequence[pathlib.Path], members: Sequence[Trained]) -> Ensemble:
    """The ensemble of some networks.

    Args:
      folders: the workdirs of the networks.
      members: the networks.

    Raises:
      UserError: there are fewer than two, their tasks, classes or images differ, or the task has no probabilities.
    """
    if len(members) < 2:
        raise UserError("an ensemble needs at least two runs")
    first, where = members[0], folders[0]
    for folder, member in zip(folders, members, strict=True):
        if averaging.of(member.spec.task.evaluation) is None:
            raise UserError(
                f"{folder}: {_without(member)} has no probabilities to average; ensembles are for classification and "
                "multi-label"
            )
    for folder, member in zip(folders[1:], members[1:], strict=True):
        if member.config.task.name != first.config.task.name:
            raise UserError(
                f"{folder} has config.task.name={member.config.task.name!r}, {where} {first.config.task.name!r}; only "
                "runs of one task make an ensemble"
            )
        if member.class_names != first.class_names:
            raise UserError(f"{folder} has other classes than {where}; only runs with the same make an ensemble")
        if member.spec.image_shape != first.spec.image_shape:
            shapes = ["x".join(map(str, each.spec.image_shape)) for each in (member, first)]
            raise UserError(
                f"{folder} takes images of {shapes[0]}, {where} of {shapes[1]}; train both on the same size"
            )
        for name in ("resize", "dtype", "grey16_max"):
            one, other = getattr(member.config.data, name), getattr(first.config.data, name)
            if one != other:
                raise UserError(
                    f"{folder} has config.data.{name}={one!r}, {where} {other!r}; only runs that read images alike "
                    "make an ensemble"
                )
    return Ensemble(tuple(folders), tuple(members))


def _without(member: Trained) -> str:
    """What has no probabilities: the task of a network, or the evaluation class of the user in its place."""
    task = member.config.task
    known = task.name in ("classification", "multilabel")
    return f"config.task.evaluation={task.evaluation!r:.200}" if known else f"config.task.name={task.name!r}"


def check_split(ensemble: Ensemble, name: str) -> None:
    """Refuse a split that is another one in some of the runs, whose networks may have learnt from its images.

    Args:
      ensemble: the ensemble.
      name: "train", "val" or "test".

    Raises:
      UserError: the labels of the split, or how it was cut, differ, as the runs recorded them.
    """
    known = [same_data.identity(workdir.read_data_facts(folder), name) for folder in ensemble.folders]
    for folder, own in zip(ensemble.folders[1:], known[1:], strict=True):
        if own != known[0]:
            raise UserError(
                f"--split={name}: {folder} has another {name} split than {ensemble.folders[0]}, so it may have learnt "
                "from these images; choose runs with the same config.data, or another split"
            )


def _single(figures: dict[str, Any]) -> dict[str, float]:
    """The figures that are one number."""
    return {name: value for name, value in figures.items() if isinstance(value, int | float) and name != "examples"}
