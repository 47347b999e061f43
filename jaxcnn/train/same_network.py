"""Checks that weights compute the same function in this run's network as in the network they were trained in."""

import dataclasses
import shlex
from typing import Any

from jaxcnn.config import Config, UserError, networks
from jaxcnn.text import counted, shown
from jaxcnn.train.workdir import CONFIG
from jaxcnn.weights import layout, names

MOST_FLAGS = 6  # that a message lists
ANYWAY = "or --config.init.partial=True to start from it all the same"


def options(config: Config) -> dict[str, Any]:
    """The options of the network of a config, for `check`."""
    return {"model": dataclasses.asdict(config.model), "norm": dataclasses.asdict(config.norm)}


def check(config: Config, source: str, there: dict[str, Any]) -> list[str]:
    """Lines that say how this run's network differs from the one that the weights were trained in.

    Args:
      config: the config of the run.
      source: the weights, for messages.
      there: `options` of the network in which they were trained, as far as they are known.

    Raises:
      UserError: an option differs that is not among `networks.BY_CHOICE`; with `init.partial` none is wrong.
    """
    model, told = config.model, there.get("model")
    backbone = networks.backbone_of(model)
    if backbone is not None and isinstance(told, dict) and told.get("name") == backbone.name:
        model = backbone
    differ = networks.differing(model, config.norm, there)
    wrong = [] if config.init.partial else [name for name in differ if name not in networks.BY_CHOICE]
    if wrong == ["model.channels"]:
        kind, _, folder = source.partition(":")
        where = f"{folder}/{CONFIG}" if kind == "workdir" else "the metadata of the file"
        theirs = differ["model.channels"]
        layers = counted(len(theirs) if isinstance(theirs, list | tuple) else 0, "layer")
        raise UserError(
            f"config.init.source={source} has another network: its config.model.channels is that of {where}, {layers}; "
            "set the same"
        )
    for name in wrong if model is backbone else ():
        if name.startswith("model.") and config.model.name not in networks.readers(name.removeprefix("model.")):
            raise UserError(
                f"config.init.source={source} has another network: it was trained with "
                f"config.{name}={_shown(differ[name])}, which {config.model.name} cannot have; choose other weights, "
                f"{ANYWAY}"
            )
    if wrong:
        flags = [f"--config.{name}={_shown(differ[name])}" for name in wrong if name != "model.channels"]
        more = f" and {counted(len(flags) - MOST_FLAGS, 'more option')}" if len(flags) > MOST_FLAGS else ""
        listed = " ".join(flags[:MOST_FLAGS]) + more
        raise UserError(f"config.init.source={source} has another network; set {listed}, {ANYWAY}")
    here = {f"{group}.{name}": value for group, own in options(config).items() for name, value in own.items()}
    return [f"trained with {name}={_shown(value)}, here {_shown(here[name])}" for name, value in differ.items()]


def check_epsilon(config: Config, source: str, naming: str) -> None:
    """Refuse a BatchNorm epsilon that differs from that of the library the weights come from; files do not record it.

    Args:
      config: the config of the run.
      source: the weights, for messages.
      naming: the naming of their arrays.
    """
    epsilon = names.EPSILONS.get(config.model.name)
    if naming == layout.OURS or epsilon in (None, config.norm.epsilon) or config.init.partial:
        return
    raise UserError(
        f"config.init.source={source}: weights of {config.model.name} with the names of {naming} are trained with "
        f"another epsilon of BatchNorm; set --config.norm.epsilon={epsilon:g}, {ANYWAY}"
    )


def check_equal(name: str, config: Config, first_name: str, first: Config) -> None:
    """Refuse to mix the weights of two runs whose networks compute otherwise.

    Args:
      name: the name of a run, for messages.
      config: its config.
      first_name: the name of the run that it is compared with.
      first: the config of that run.
    """
    if differ := networks.differing(first.model, first.norm, options(config)):
        listed = ", ".join(f"config.{option}" for option in list(differ)[:MOST_FLAGS])
        raise UserError(f"config.init.source: {name} has another {listed} than {first_name}; only equal networks mix")


def _shown(value: Any) -> str:
    """A value as in a flag."""
    return shlex.quote(shown(str(tuple(value) if isinstance(value, list) else value).replace(", ", ",")))[:100]
