"""Checks of a config that need neither data nor devices: values out of range, and impossible combinations."""

import dataclasses
from collections.abc import Iterator
from typing import Any, get_type_hints

from jaxcnn.config import networks, open_names, places, ranges, rules_of_data, rules_of_tasks, rules_of_training
from jaxcnn.config.fields import Config
from jaxcnn.config.fields_of_networks import AUTO


def check(config: Config) -> list[str]:
    """The mistakes in a config, one line each; empty without any."""
    wrong = list(_out_of_range(config))
    told = {line.partition(" ")[0].partition("=")[0] for line in wrong}
    others = [
        *_of_network(config),
        *rules_of_tasks.mistakes(config),
        *places.mistakes(config),
        *rules_of_training.mistakes(config),
        *rules_of_data.mistakes(config),
        *_of_run(config),
    ]
    # Of a value that is out of range, this is enough.
    return wrong + [line for line in others if not any(line.startswith(f"{key} ") for key in told)]


def _out_of_range(group: Any, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(type(group), include_extras=True).items():
        value = getattr(group, name)
        if dataclasses.is_dataclass(value):
            yield from _out_of_range(value, f"{prefix}{name}.")
        else:
            yield from ranges.violations(f"config.{prefix}{name}", value, ranges.of_hint(hint))


def _of_network(config: Config) -> Iterator[str]:
    """The mistakes in the options of the network."""
    model = config.model
    if model.num_classes == 1:
        yield "config.model.num_classes must be at least 2, or 0 for the number of classes of the data set"
    # A network of a user may read any option; one that the weights decide is checked again once it is known.
    if any(open_names.foreign(model)) or model.name == AUTO:
        return
    yield from networks.unread(model)
    yield from networks.impossible_attention(model)
    yield from networks.impossible_stages(model)
    yield from networks.impossible_agnostic(model)
    yield from networks.impossible_bins(model)
    yield from networks.impossible_norm(model, config.norm)
    yield from networks.impossible_channels(model)
    if model.head != "linear" and model.form != "cifar":
        yield f"config.model.head={model.head!r} is for form='cifar'; form={model.form!r} has its own hidden layers"


def _of_run(config: Config) -> Iterator[str]:
    """The mistakes in how long a run trains, and by what it is judged."""
    run, validates = config.run, config.data.protocol == "holdout"
    if not (run.steps > 0 or run.epochs > 0):
        yield "config.run.epochs (or config.run.steps) must be above 0"
    if run.steps_per_call > 1 and config.data.loader == "stream":
        yield (
            f"config.run.steps_per_call={run.steps_per_call} needs the resident loader, not "
            "config.data.loader='stream'; set it to 0 or 1"
        )
    if run.patience and not validates:
        yield "config.run.patience needs a validation split (config.data.protocol='holdout')"
    if run.min_delta and run.patience <= 0:
        yield "config.run.min_delta has no effect without config.run.patience"
    if run.tta_share != 1 and (run.tta == "none" or config.task.name != "classification"):
        yield (
            "config.run.tta_share chooses images by the probability of their class for config.run.tta; it needs "
            "config.task.name='classification' and a config.run.tta other than 'none'"
        )
    if run.test_with != "last" and not validates:
        yield "config.run.test_with='best' needs a validation split (config.data.protocol='holdout')"
    if run.test_with != "last" and config.checkpoint.keep_best <= 0:
        yield "config.run.test_with='best' needs config.checkpoint.keep_best of at least 1"
