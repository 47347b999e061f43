"""The mistakes in a config that concern detection: what it needs, and what is for other tasks."""

from jaxcnn.config import networks
from jaxcnn.config.fields import NETWORKS, Augment, Config, Data, Optim, Run, Task

NAME = "detection"
OWN = ("most_boxes", "most_found", "most_overlap")  # fields of `config.task`
OF_CLASSES = {  # what is for one answer for each image, by group; each keeps its default
    "task": ("loss", "evaluation", "class_weights", "weights_by_name", "focal_gamma", "logit_adjustment", "error"),
    "optim": ("label_smoothing",),
    "data": ("sampling",),
    "run": ("tta",),
}
BY_BOXES = ("mixup", "cutmix", "policy", "small_sides")  # augmentation that boxes do not follow
_DEFAULTS = {"task": Task, "optim": Optim, "data": Data, "run": Run}


def mistakes(config: Config) -> list[str]:
    """One line for each."""
    task, model, augment = config.task, config.model, config.augment
    detects = model.name in networks.DETECTORS
    if task.name != NAME:
        wrong = [
            f"config.task.{name} is for config.task.name='{NAME}' only"
            for name in OWN
            if getattr(task, name) != getattr(Task, name)
        ]
        if detects:
            wrong.append(f"config.model.name={model.name!r} answers boxes; set config.task.name='{NAME}'")
        return wrong
    wrong = []
    if not detects and model.name in NETWORKS:
        wrong.append(
            f"config.task.name='{NAME}' needs a network that answers boxes: {', '.join(networks.DETECTORS)}; not "
            f"{model.name!r}"
        )
    for group, names in OF_CLASSES.items():
        of_group, default = getattr(config, group), _DEFAULTS[group]
        wrong += [
            f"config.{group}.{name} is for one answer for each image; config.task.name='{NAME}' has boxes"
            for name in names
            if getattr(of_group, name) != getattr(default, name)
        ]
    wrong += [
        f"config.augment.{name} does not move boxes; leave it out for config.task.name='{NAME}'"
        for name in BY_BOXES
        if getattr(augment, name) != getattr(Augment, name)
    ]
    if augment.crop == "reflect":
        wrong.append(
            f"config.augment.crop='reflect' repeats objects without boxes; set 'zero' for config.task.name='{NAME}'"
        )
    return wrong
