"""The mistakes in a config whose answers have places in an image: what detection and segmentation need and exclude."""

import dataclasses

from jaxcnn.config import networks
from jaxcnn.config.fields import Augment, Config, Data, Optim, Run, Task
from jaxcnn.config.fields_of_networks import NETWORKS

DETECTION, SEGMENTATION, INSTANCES = "detection", "segmentation", "instances"
BY_PIXELS = ("mixup", "cutmix", "policy", "small_sides")  # augmentation that answers with places do not follow
COMPOSED = ("mosaic", "mixup_boxes", "copy_paste")  # augmentation that makes an image of several
LEAST_FACTOR, MOST_FACTOR = 0.1, 4.0  # of large-scale jitter
STRIDE = 32  # pixels of the coarsest maps of a detector
MOST_JITTERED = 3000  # pixels; places beyond it, at a tenth of the size, have more bits than an int32
_DEFAULTS = {"task": Task, "optim": Optim, "data": Data, "run": Run}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A task whose answers have places.

    Attributes:
      networks: ours that answer it.
      answers: what they answer.
      own: fields of `config.task` for it alone.
      composed: which of `COMPOSED` it takes.
      excluded: what is for one answer for each image, by group; each keeps its default.
    """

    networks: tuple[str, ...]
    answers: str
    own: tuple[str, ...]
    composed: tuple[str, ...]
    excluded: dict[str, tuple[str, ...]]


_BOXES = ("most_boxes", "most_found", "most_overlap", "soft_suppression", "suppress_across")
_OF_ONE_ANSWER = {
    "task": (
        *("loss", "evaluation", "class_weights", "weights_by_name"),
        *("focal_gamma", "logit_adjustment", "generalized_q", "error"),
    ),
    "optim": ("label_smoothing",),
    "data": ("sampling",),
    "run": ("tta",),
}
KINDS = {
    DETECTION: Kind(
        networks.DETECTORS,
        "boxes",
        _BOXES,
        ("mosaic", "mixup_boxes"),
        _OF_ONE_ANSWER,
    ),
    INSTANCES: Kind(
        networks.INSTANCES,
        "boxes and masks",
        (*_BOXES, "mask_side"),
        COMPOSED,
        _OF_ONE_ANSWER,
    ),
    SEGMENTATION: Kind(
        networks.SEGMENTERS,
        "a class for each pixel",
        ("dice_share",),
        ("mosaic",),
        {
            "task": ("loss", "evaluation", "focal_gamma", "logit_adjustment", "generalized_q", "error"),
            "data": ("sampling",),
            "run": ("tta",),
        },
    ),
}


def mistakes(config: Config) -> list[str]:
    """One line for each."""
    name = config.task.name
    wrong = [line for other in KINDS if other != name for line in _of_another(config, other)]
    wrong += _of_composed(config)
    wrong += _of_factors(config)
    wrong += _of_sides(config)
    wrong += _of_shapes(config)
    return wrong + _of_own(config, name, KINDS[name]) if name in KINDS else wrong


def _of_composed(config: Config) -> list[str]:
    """Mistakes in augmentations that combine several images, such as a mosaic."""
    augment, name = config.augment, config.task.name
    used = [field for field in COMPOSED if getattr(augment, field)]
    wrong = []
    for field in used:
        takers = [task for task, kind in KINDS.items() if field in kind.composed]
        if name not in takers:
            wrong.append(
                f"config.augment.{field} is for config.task.name={' or '.join(map(repr, takers))}, not {name!r}"
            )
        elif config.global_batch_size == 1:
            wrong.append(f"config.augment.{field} needs other images of the batch, but config.global_batch_size is 1")
    if augment.single_from and not used:
        wrong.append(
            f"config.augment.single_from={augment.single_from} has no effect without one of {', '.join(COMPOSED)}"
        )
    return wrong


def _of_factors(config: Config) -> list[str]:
    """What is wrong with the factors of large-scale jitter."""
    factors, side = config.augment.scale_jitter, config.data.image_size
    if not factors:
        return []
    ways = (
        (len(factors) != 2 or not LEAST_FACTOR <= factors[0] < factors[-1] <= MOST_FACTOR,
         f"must be two rising factors from {LEAST_FACTOR:g} to {MOST_FACTOR:g}, such as (0.1, 2.0)"),
        (config.augment.zoom, "draws the size of images; leave out config.augment.zoom"),
        (side > MOST_JITTERED, f"needs config.data.image_size of at most {MOST_JITTERED} pixels, not {side}"),
    )  # fmt: skip
    return [f"config.augment.scale_jitter={factors} {what}" for is_wrong, what in ways if is_wrong]


def _of_sides(config: Config) -> list[str]:
    """Options that cannot be combined with `augment.sides`, from which each step draws the size of its images."""
    sides = config.augment.sides
    if not sides:
        return []
    ways = (
        (
            len(sides) < 2 or sides[0] < 1 or list(sides) != sorted(set(sides)),
            "must be two or more rising sides above 0",
        ),
        (config.augment.small_sides, "is drawn in each step; leave out config.augment.small_sides, which rise"),
        (config.task.name == SEGMENTATION, "does not resize classes of pixels; leave it out"),
        (config.task.teacher, "and config.task.teacher, which needs images of one size, exclude each other"),
    )
    return [f"config.augment.sides={sides} {what}" for is_wrong, what in ways if is_wrong]


def _of_shapes(config: Config) -> list[str]:
    """What does not go with batches of wide or tall images."""
    shapes, side = config.augment.shapes, config.data.image_size
    if not shapes:
        return []
    odd = [shape for shape in shapes if len(shape) != 2 or any(not 0 < each <= side or each % STRIDE for each in shape)]
    ways = (
        (config.task.name not in (DETECTION, INSTANCES),
         f"is for config.task.name={DETECTION!r} or {INSTANCES!r}, not {config.task.name!r}"),
        (config.data.resize != "pad" or not side or side % STRIDE,
         f"needs config.data.resize='pad' and a config.data.image_size that is a multiple of {STRIDE}"),
        (odd, f"must be pairs (height, width) of multiples of {STRIDE} up to config.data.image_size"),
        (config.augment.sides or config.augment.small_sides, "excludes config.augment.sides and small_sides"),
        (config.augment.flip == "alternating", "sorts examples across epochs; set config.augment.flip='random'"),
    )  # fmt: skip
    return [f"config.augment.shapes={shapes} {what}" for is_wrong, what in ways if is_wrong]


def _of_another(config: Config, other: str) -> list[str]:
    """Options that belong to another task than the config's."""
    kind, task, model = KINDS[other], config.task, config.model
    own = KINDS[task.name].own if task.name in KINDS else ()
    wrong = [
        f"config.task.{name} is for config.task.name='{other}' only{_and_others(name, other)}"
        for name in kind.own
        if getattr(task, name) != getattr(Task, name) and name not in own and _first(name) == other
    ]
    if model.name in kind.networks and task.name not in KINDS:
        wrong.append(f"config.model.name={model.name!r} answers {kind.answers}; set config.task.name='{other}'")
    return wrong


def _and_others(name: str, first: str) -> str:
    """The other tasks that have a field of `config.task`, as the end of a sentence."""
    return "".join(f", or '{task}'" for task, kind in KINDS.items() if name in kind.own and task != first)


def _first(name: str) -> str:
    """The first task that has a field, whose line names them all."""
    return next(task for task, kind in KINDS.items() if name in kind.own)


def _of_own(config: Config, name: str, kind: Kind) -> list[str]:
    model, augment = config.model, config.augment
    wrong = []
    if model.name not in kind.networks and model.name in NETWORKS:
        wrong.append(
            f"config.task.name='{name}' needs a network that answers {kind.answers}: {', '.join(kind.networks)}; not "
            f"{model.name!r}"
        )
    for group, names in kind.excluded.items():
        of_group, default = getattr(config, group), _DEFAULTS[group]
        wrong += [
            f"config.{group}.{field} is for one answer for each image; config.task.name='{name}' has {kind.answers}"
            for field in names
            if getattr(of_group, field) != getattr(default, field)
        ]
    what = "classes of pixels" if name == SEGMENTATION else kind.answers
    if name == INSTANCES and config.task.mask_side % 8:
        wrong.append(f"config.task.mask_side={config.task.mask_side} must be a multiple of 8")
    wrong += [
        f"config.augment.{field} does not move {what}; leave it out for config.task.name='{name}'"
        f"{', or set mixup_boxes' if field == 'mixup' and 'mixup_boxes' in kind.composed else ''}"
        for field in BY_PIXELS
        if getattr(augment, field) != getattr(Augment, field)
    ]
    if augment.crop == "reflect":
        wrong.append(
            f"config.augment.crop='reflect' repeats objects without {what}; set 'zero' for config.task.name='{name}'"
        )
    return wrong
