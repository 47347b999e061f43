"""Checks of what a config lets a network learn: the task, its loss, its teacher, and the sampling of its classes."""

from collections.abc import Collection
from typing import Any

from jaxcnn.config.fields import Config, Task

OF_CLASSES = ("task.class_weights", "task.weights_by_name", "task.focal_gamma", "optim.label_smoothing")
OF_TEACHERS = ("temperature", "teacher_share")  # fields of the task that only a teacher needs
BALANCED = "config.data.sampling='balanced'"


def mistakes(config: Config) -> list[str]:
    """The mistakes in what is learnt, one line each."""
    task = config.task
    wrong = [*_of_teacher(config), *_of_sampling(config)]
    if task.name == "regression":
        for name in OF_CLASSES:
            if _value(config, name) != _default(name):
                wrong.append(
                    f"config.{name} is for classes; config.task.name='regression' has none; set it to "
                    f"{_default(name)!r}"
                )
    if task.loss:
        for name in ("class_weights", "weights_by_name", "focal_gamma", "generalized_q", "error"):
            if getattr(task, name) != getattr(Task, name):
                wrong.append(f"config.task.{name} has no effect with config.task.loss={task.loss!r:.200}")
    for name in ("logit_adjustment", "generalized_q", "specificity"):
        if getattr(task, name) and task.name != "classification":
            wrong.append(f"config.task.{name} is for config.task.name='classification' only")
    if task.error != "squared" and task.name != "regression":
        wrong.append("config.task.error is for config.task.name='regression' only")
    if task.teacher and task.name != "classification":
        wrong.append("config.task.teacher is for config.task.name='classification' only")
    for name, weight in task.weights_by_name:
        if weight <= 0:
            wrong.append(f"config.task.weights_by_name gives {name!r:.200} a weight of {weight:g}; it must be above 0")
    if task.specificity and config.data.protocol == "full":
        wrong.append(
            "config.task.specificity needs a validation split to choose its thresholds (config.data.protocol='holdout')"
        )
    if task.monitor and config.data.protocol == "full":
        wrong.append("config.task.monitor needs a validation split (config.data.protocol='holdout')")
    if task.monitor_mode != "auto" and not task.monitor:
        wrong.append("config.task.monitor_mode has no effect without config.task.monitor")
    return wrong


def _value(config: Config, key: str) -> Any:
    group, _, name = key.partition(".")
    return getattr(getattr(config, group), name)


def _default(key: str) -> Any:
    return _value(Config(), key)


def left_out(flat: dict[str, Any], before: str, given: Collection[str]) -> list[str]:
    """Leave out the fields of a recipe that mean nothing for another task than the recipe's; return a line for each.

    Args:
      flat: the flat config with the new task, which is changed.
      before: the task of the recipe.
      given: keys that the user has set, which are never left out.
    """
    if flat["task.name"] != "regression" or before == "regression":
        return []
    lines = []
    for key in OF_CLASSES:
        if key not in given and flat.get(key, _default(key)) != _default(key):
            what = f"config.{key}={flat[key]!r} of the recipe is left out"
            lines.append(f"{what}: it is not for config.task.name={flat['task.name']!r}")
            flat[key] = _default(key)
    return lines


def _of_teacher(config: Config) -> list[str]:
    """What does not go with a teacher, or not without one."""
    task = config.task
    if task.teacher:
        one_size = "config.task.teacher needs images of one size; leave config.augment.small_sides out"
        return [one_size] if config.augment.small_sides else []
    changed = [name for name in OF_TEACHERS if getattr(task, name) != getattr(Task, name)]
    return [f"config.task.{name} has no effect without config.task.teacher" for name in changed]


def _of_sampling(config: Config) -> list[str]:
    """What does not go with balanced sampling, after which classes are equally frequent as far as its limit allows."""
    task = config.task
    if config.data.sampling != "balanced":
        return []
    if task.name != "classification":
        instead = "; set config.task.class_weights='auto'" if task.name == "multilabel" else ""
        return [f"{BALANCED} is for config.task.name='classification', where each image has one class{instead}"]
    ways = (("class_weights='auto'", task.class_weights == "auto"), ("logit_adjustment", task.logit_adjustment > 0))
    return [
        f"{BALANCED} repeats the examples of rare classes already, so config.task.{name} has no effect, or little; "
        "leave one of them out"
        for name, is_set in ways
        if is_set
    ]
