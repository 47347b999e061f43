"""Configs with one or two wrong values, through the function that every command uses."""

import math
import random
from collections.abc import Iterator
from typing import Any

from jaxcnn import config as configs
from jaxcnn.learn.step_spec import make_spec
from jaxcnn.tasks import by_name

VALUES: tuple[Any, ...] = (
    -1, 0, 1, 2, 3, 7, 2**31, 2**63, 2**64, 10**400, -(2**63), -0.5, 0.0, 0.3, 1.0, 1.5, 1e300, math.nan, math.inf,
    -math.inf, True, False, None, "", " ", "none", "auto", "no such name", "sgd", "cnn", "a:b", "digits", "x" * 5000,
    "\x00", "\ud800", "ä\n", [], [1], [0.5, 0.5], ["a"], [[1]], [math.nan], (), {}, {"a": 1}, b"bytes", 1j, {1},
    range(3), object(),
)  # fmt: skip


def cases(number: int, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field with every value in turn, in random order, then pairs; each as words and a tree."""
    generator = random.Random(seed)
    plain = configs.to_dict(configs.Config())
    keys = list(configs.flatten(plain))
    groups = sorted({key.rpartition(".")[0] for key in keys} - {""})
    singles = [({key: value}) for key in [*keys, *groups] for value in VALUES]
    generator.shuffle(singles)
    names = {key: configs.choices(key) for key in keys}
    for count in range(number):
        if count < min(len(singles), number // 2):
            changes = singles[count]
        else:
            chosen = generator.sample(keys, 2)
            changes = {key: generator.choice((*VALUES, *(names[key] * 8))) for key in chosen}
        tree = configs.nested(configs.flatten(plain))
        for key, value in changes.items():
            *above, name = key.split(".")
            group = tree
            for each in above:
                group = group[each]
            group[name] = value
        yield ", ".join(f"{key}={_shown(value)}" for key, value in changes.items()), tree


def _shown(value: Any) -> str:
    try:
        return repr(value)[:60]
    except ValueError:
        return "a long integer"


def accept(tree: dict[str, Any]) -> None:
    """What a command does with a config before it reads data; then the spec of its step for some data."""
    config = configs.from_config_dict(tree)
    configs.to_dict(config)
    if config.task.name == "classification" and config.model.name != "none":
        make_spec(config, task=by_name.make(config.task, 4), image_shape=(32, 32, 3), train_examples=10_000)
