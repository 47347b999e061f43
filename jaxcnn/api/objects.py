"""The parts of a run that are objects of a Python session, in no module file: a later session gives them again."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jaxcnn.config as configs
from jaxcnn.api.configs import changed
from jaxcnn.config import Config, UserError
from jaxcnn.machine import plugins
from jaxcnn.train import workdir

_trained: dict[pathlib.Path, dict[str, Any]] = {}  # open names of the runs that this process trained, by their folders


def remember(folder: pathlib.Path, config: Config) -> None:
    """Note the names that the objects of a run have in this process, before it is trained here."""
    flat = configs.flatten(configs.to_dict(config))
    _trained[folder.resolve()] = {key: flat[key] for key, _ in plugins.needs(config)}


def config_of(folder: pathlib.Path, given: Mapping[str, Any]) -> Config:
    """The config of a run, whose open names lead to objects of this process.

    A name of another session never leads to an object of this one: what is neither given nor from a training in this
    process is refused when it is first needed.

    Args:
      folder: the workdir.
      given: objects by the names that `jaxcnn.config` takes, such as {"model": Net, "task": {"loss": function}}.

    Raises:
      UserError: the folder has no run, or the run does not need one of the objects.
    """
    config = workdir.read_config(folder)
    flat = configs.flatten(configs.to_dict(config))
    names = {key: _elsewhere(flat[key]) for key, _ in plugins.needs(config)} | _trained.get(folder.resolve(), {})
    for key, value in changed(flat, given).items():
        if key == "model.name" and key not in names:
            raise UserError(f"the network of this run is {flat[key]!r}, which needs no model=")
        if key not in names:
            needed = ", ".join(names) or "nothing"
            raise UserError(f"config.{key} of this run is {flat[key]!r}, which is not given again; it needs {needed}")
        if isinstance(flat[key], tuple | list) and len(value) != len(flat[key]):
            raise UserError(f"config.{key} of this run has {len(flat[key])} objects, but {len(value)} are given")
        names[key] = value
    return configs.from_config_dict(configs.nested(flat | names))


def _elsewhere(name: Any) -> Any:
    """The name of an object of another session, which nothing of this one has; that of a script's own stays."""
    if isinstance(name, list | tuple):
        return tuple(map(_elsewhere, name))
    target, bracket, options = name.partition("(")
    return f"{target}{plugins.ELSEWHERE}{bracket}{options}" if target.startswith(f"{plugins.GIVEN}:") else name
