"""A trained network from the facts of a file that was made of it, without the folder of its run.

The facts (`jaxcnn.train.exported.facts`) have the names of the classes, the size and the reading of images, and all
options of the network and the task, so that a file alone can answer as its run does. Nothing in them is run: a network
or a task that is not one of jaxcnn's own is refused.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.config import Config, ConfigError, UserError, from_config_dict
from jaxcnn.config.open_names import foreign
from jaxcnn.data.batch import Constants
from jaxcnn.learn.network import head_of, network, unrounded
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine import json_text
from jaxcnn.machine import mesh as meshes
from jaxcnn.text import shown
from jaxcnn.train import seals, trained
from jaxcnn.train.trained import Trained
from jaxcnn.weights import compressed, files, fit, layout

MOST_SIDE = 2**14  # largest side of an image in facts, as in config.data.image_size

Arrays = Callable[[StepSpec], Any]  # the variables of a network


def parsed(texts: Mapping[str, str]) -> dict[str, Any]:
    """Facts from their JSON texts."""
    return {name: json_text.parse_or_keep(text) for name, text in texts.items()}


def of(facts: Mapping[str, Any], where: str, arrays: Arrays = lambda spec: {}) -> Trained:
    """The network of a file, on one device.

    Args:
      facts: the facts of the file, parsed.
      where: the file, for messages.
      arrays: makes its variables; by default it has none, because the file itself answers.

    Raises:
      UserError: the facts do not tell the network, or it is not one of jaxcnn's own.
    """
    config = _config(facts, where)
    try:
        names, shape = tuple(map(str, facts["class_names"])), tuple(facts["image_shape"])
        fitted, channels, step = dict(facts.get("fitted", {})), shape[2], facts["step"]
        whole = len(shape) == 3 and all(type(size) is int and 0 < size <= MOST_SIDE for size in shape) and names
        if not whole or type(step) is not int or not all(map(_numbers, fitted.values())):
            raise ValueError
        mean, std = (np.asarray(facts.get(name, [n] * channels), np.float32) for name, n in (("mean", 0), ("std", 1)))
        of_task = {name: np.asarray(value, np.float32) for name, value in facts.get("constants", {}).items()}
        if mean.shape != (channels,) or std.shape != (channels,) or not np.all(std > 0):
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        raise _untold(where) from None
    meshes.prepare_backend()
    mesh = meshes.make_mesh(1)
    spec = trained.spec_of(config, {"class_names": names, "image_shape": shape, "train_examples": 1})
    wanted = spec.task.loss.abstract()
    if {name: value.shape for name, value in wanted.items()} != {name: v.shape for name, v in of_task.items()}:
        raise _untold(where)
    variables, constants = jax.device_put((arrays(spec), Constants(mean, std, of_task)), meshes.replicated(mesh))
    return Trained(config, spec, mesh, step, "those of the file", variables, constants, names, fitted)


def read(path: pathlib.Path) -> tuple[Trained, dict[str, Any]]:
    """The network of a file of weights, .jxc or .safetensors of jaxcnn, and its facts.

    Raises:
      UserError: it cannot be read, is damaged, or does not tell its network.
    """
    facts = parsed(files.facts(path))
    return of(facts, shown(str(path)), lambda spec: _arrays(path, facts, spec)), facts


def read_beside(path: pathlib.Path, run: Trained) -> tuple[Trained, dict[str, Any]]:
    """The network of a file of weights, and its facts, as `read`; of a run with code of its own, with that code.

    Args:
      path: the file.
      run: the network that it was made of.

    Raises:
      UserError: as `read`, but for code that is not in the file.
    """
    config, facts = run.config, parsed(files.facts(path))
    if not any(name for group in (config.model, config.norm, config.task) for name in foreign(group)):
        return read(path)
    spec = unrounded(run.spec)
    variables = jax.device_put(_arrays(path, facts, spec), meshes.replicated(run.mesh))
    return dataclasses.replace(run, spec=spec, variables=variables), facts


def _arrays(path: pathlib.Path, facts: Mapping[str, Any], spec: StepSpec) -> Any:
    """The variables of a network from a file of weights.

    Raises:
      UserError: they are not those of this network.
    """
    images = jnp.zeros((1, *spec.image_shape), jnp.float32)
    shapes = jax.eval_shape(lambda: network(spec).init(jax.random.key(0), images))
    drawn = {name: np.broadcast_to(np.float32(0), leaf.shape) for name, leaf in seals.leaves(shapes)}
    of_file, _ = files.read(path, wanted=seals.shapes(shapes))
    naming = str(facts.get("names", layout.OURS))
    fitted = fit.fit(of_file, spec.model, drawn, source=shown(str(path)), naming=naming, head=head_of(spec))
    if fitted.arrays.keys() != drawn.keys():
        raise compressed.OtherNetwork
    return seals.filled(shapes, fitted.arrays)


def _config(facts: Mapping[str, Any], where: str) -> Config:
    """The config of the network in facts."""
    groups = facts.get("config")
    if not isinstance(groups, dict) or not isinstance(facts.get("model"), dict):
        raise _untold(where)
    try:
        config = from_config_dict({**groups, "model": facts["model"]})
    except ConfigError as error:
        raise UserError(f"{where} has facts of another version ({str(error).splitlines()[0][:200]})") from error
    for key, _, name in foreign(config):
        raise UserError(
            f"{where}: {key} is {shown(name)}, code that is not in the file; give the folder of its run by --workdir"
        )
    return config


def _numbers(value: Any) -> bool:
    """Whether a fitted value is a number above 0, or a list of numbers."""
    if isinstance(value, list):
        return all(isinstance(each, int | float) for each in value)
    return isinstance(value, int | float) and value > 0


def _untold(where: str) -> UserError:
    return UserError(f"{where} does not tell its network; export the run again, or give the folder of its run, too")
