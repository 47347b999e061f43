"""The mean and standard deviation for normalising images, kept in the workdir.

They are those of the training split (computed once), those that came with the starting weights, or given values.
"""

import pathlib
from collections.abc import Callable

import jax
import numpy as np

from jaxcnn.config import Augment, ConfigError, UserError
from jaxcnn.data import place
from jaxcnn.data.batch import Constants, Split
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.machine.mesh import put
from jaxcnn.train import workdir

FILE = "normalization.json"


Statistics = Callable[[Split], tuple[np.ndarray, np.ndarray]]
Given = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of each channel
IMAGENET: Given = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's, for RGB images


def given(augment: Augment, of_weights: Given | None, channels: int) -> Given | None:
    """The mean and std to use in place of those of the training split; None if these are to be computed.

    For one channel, three channels are averaged: a grey image then gets about what it would get as RGB.

    Args:
      augment: the config of augmentation.
      of_weights: mean and std that came with the starting weights; None if there were none.
      channels: number of channels of the images.

    Raises:
      ConfigError: mean and std are for another number of channels.
    """
    found = {
        "auto": of_weights,
        "own": None,
        "imagenet": IMAGENET,
        "given": (augment.mean, augment.std),
    }[augment.normalize_by]
    if found is None or not augment.normalize or len(found[0]) == channels:
        return found
    mean, std = found
    if len(mean) == 3 and channels == 1:
        return (sum(mean) / 3,), (sum(std) / 3,)
    if len(mean) == 1:
        return mean * channels, std * channels
    raise ConfigError(
        f"config.augment.normalize_by={augment.normalize_by!r} has {len(mean)} channels, but the images have "
        f"{channels}; set normalize_by='own', or 'given' with mean and std of each channel"
    )


def of_split(
    train: Split,
    augment: Augment,
    folder: pathlib.Path,
    sharding: jax.sharding.NamedSharding,
    statistics: Statistics,
    cluster: Cluster,
    of_weights: Given | None = None,
) -> Constants:
    """Mean and standard deviation, read from the workdir or else computed or taken as given, and written there.

    Without `augment.normalize`, they are 0 and 1. Process 0 computes them by `statistics` for all processes.
    `of_weights` are those that came with the starting weights of a new run.

    Raises:
      UserError: the values in the workdir belong to other data.
    """
    known = given(augment, of_weights, train.image_shape[-1])
    if augment.normalize and cluster.first:
        _keep(train, folder, statistics, known)
    normal = read(folder, augment.normalize, train.image_shape[-1]) if cluster.first else None
    mean, std = cluster.of_first(lambda: [[float(x) for x in values] for values in (normal.mean, normal.std)])  # type: ignore[union-attr]
    return put(Constants(np.array(mean, np.float32), np.array(std, np.float32)), sharding)


def read(folder: pathlib.Path, normalize: bool, channels: int) -> Constants:
    """The normalisation of a finished or interrupted run; 0 and 1 if it does not `normalize`.

    Raises:
      UserError: the file in the workdir is missing or damaged.
    """
    if not normalize:
        return Constants(np.zeros(channels, np.float32), np.ones(channels, np.float32))
    kept = workdir.read_sealed(folder / FILE)
    try:
        mean, std = (np.array(kept[name], np.float32) for name in ("mean", "std"))
        if mean.shape == std.shape == (channels,) and np.all(np.isfinite(mean)) and np.all(std > 0):
            return Constants(mean, std)
    except (KeyError, TypeError, ValueError):
        pass
    raise UserError(
        f"{folder / FILE} does not contain the mean and std of {channels} channels; restore it from a backup, or start "
        "again in another workdir"
    )


def _keep(train: Split, folder: pathlib.Path, statistics: Statistics, known: Given | None = None) -> None:
    """Check the statistics in the workdir against the training split; write them if missing, computed or `known`."""
    path = folder / FILE
    if path.exists() and (folder / workdir.CONFIG).exists():  # written by a run that reached training
        kept = workdir.read_sealed(path)
        if kept.get("given"):
            return
        there, here = (place.without_place(str(text)) for text in (kept.get("split"), train.description))
        if there != here or kept.get("examples") != len(train):
            raise UserError(
                f"{path} was computed from {kept.get('split')} with {kept.get('examples')} examples, but the data is "
                f"now {train.description} with {len(train)}; restore the data, or choose another workdir"
            )
        return
    mean, std = statistics(train) if known is None else known
    values = {"mean": [float(x) for x in mean], "std": [float(x) for x in std]}
    of = {"split": train.description, "examples": len(train)} if known is None else {"given": True}
    workdir.write_sealed(path, of | values)
