"""Checks of a config's data: its source, how it is split and read, and its augmentation."""

import itertools
from collections.abc import Iterator

from jaxcnn.config.fields import Config

WITHOUT_GROUPS = ("tfds", "digits", "synthetic", "folder", "coco", "yolo", "voc", "shapes", "masks")
WITHOUT_FILES = ("digits", "synthetic", "npz", "shapes", "arrays")  # sources whose images need no decoding
OF_MANIFESTS = ("image_column", "label_column", "split_column", "weight_column")  # fields for csv: only
HELD_OUT = "holdout"  # data.val_split: hold out of the training split, even if the set has a validation split


def mistakes(config: Config) -> list[str]:
    """The mistakes in what is read and how it is augmented, one line each."""
    return [*_of_source(config), *_of_splits(config), *_of_augmentation(config), *_of_normalization(config)]


def _of_source(config: Config) -> Iterator[str]:
    data = config.data
    kind = data.source.partition(":")[0]
    if data.label_separator == "":
        yield "config.data.label_separator must not be empty"
    for name in () if kind == "csv" else OF_MANIFESTS:
        if column := getattr(data, name):
            yield f"config.data.{name}={column!r:.200} is for config.data.source='csv:<path>' only"
    if data.images_below and kind not in ("csv", "coco", "voc"):
        yield (
            f"config.data.images_below={data.images_below!r:.200} is for sources that list images: csv:, coco: and "
            f"voc:, not {kind}"
        )
    if data.group and kind in WITHOUT_GROUPS:
        yield (
            f"config.data.group={data.group!r:.200} needs a source that tells groups: csv:, npz:, arrays or your "
            f"own code, not {kind}"
        )
    if data.cache and kind in WITHOUT_FILES:
        yield f"config.data.cache={data.cache!r:.200} keeps decoded image files, but {kind} has none; leave it empty"


def _of_splits(config: Config) -> Iterator[str]:
    data = config.data
    holds_out = data.val_split in ("", HELD_OUT)
    if data.protocol != "full" and data.val_examples <= 0 and holds_out:
        yield (
            "config.data.val_examples=0 leaves no validation examples; to train without validation, set "
            "config.data.protocol='full'"
        )
    if data.fold >= max(data.folds, 1) or data.folds == 1:
        yield (
            f"config.data.fold={data.fold} must be below config.data.folds={data.folds}, which must be 0 or at least 2"
        )
    if data.folds and not (data.protocol == "holdout" and holds_out):
        yield (
            "config.data.folds takes validation from the training split; leave config.data.protocol='holdout' and "
            "config.data.val_split=''"
        )


def _of_augmentation(config: Config) -> Iterator[str]:
    augment = config.augment
    sides, until = augment.small_sides, augment.small_until
    if len(sides) != len(until):
        yield f"config.augment.small_sides={sides} and small_until={until} must have the same length"
    if any(side <= 0 for side in sides):
        yield f"config.augment.small_sides must be above 0, but is {sides}"
    if not all(a < b for a, b in itertools.pairwise((0, *until, 1))):
        yield f"config.augment.small_until must increase, with all values between 0 and 1, but is {until}"
    colours = augment.brightness, augment.contrast, augment.saturation, augment.hue
    if config.data.dtype != "uint8" and (augment.policy != "none" or any(colours)):
        yield (
            "config.augment: policies and colour jitter are for 8-bit pixels; with config.data.dtype="
            f"{config.data.dtype!r}, set policy='none', and brightness, contrast, saturation and hue to 0"
        )


def _of_normalization(config: Config) -> Iterator[str]:
    augment = config.augment
    given = bool(augment.mean or augment.std)
    normalizes = augment.normalize or augment.normalize_by in ("auto", "own")
    if given != (augment.normalize_by == "given") or not normalizes:
        yield (
            "config.augment.mean and std are for config.augment.normalize_by='given', which needs both of them, and "
            "config.augment.normalize=True"
        )
    if len(augment.mean) != len(augment.std) or not all(value > 0 for value in augment.std):
        yield (
            f"config.augment.mean={augment.mean} and std={augment.std} must have one number for each channel, those of "
            "std above 0"
        )
