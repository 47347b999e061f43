"""The network that starting weights are of, for a run whose config leaves it to them (`config.model.name="auto"`)."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn.config as configs
from jaxcnn import models
from jaxcnn.config import Config, Init, UserError, networks
from jaxcnn.config.fields_of_networks import AUTO, DRAWN, NETWORKS
from jaxcnn.machine import json_text, plugins
from jaxcnn.machine.heartbeat import Cluster
from jaxcnn.machine.paths import expand, separate
from jaxcnn.text import shown
from jaxcnn.train import same_network, seals, workdir
from jaxcnn.weights import files, fit, hub, layout, names, published, released

SIDE = 64  # of the images on which a network is built to see its arrays; no published shape depends on it
Options = dict[str, Any]  # "model" and "norm" of a network, as in `config.json`


def of_run(config: Config, folder: pathlib.Path, cluster: Cluster) -> tuple[Config, str]:
    """`of` for a run in a workdir, the same in all processes, and a line for the user where the run is new."""
    if config.model.name != AUTO:
        return config, ""

    def found() -> tuple[Options, bool]:
        recorded = _of_workdir(folder)
        return (_of_source(config), bool(config.init.source)) if recorded is None else (recorded, False)

    there, is_new = cluster.of_first(found)
    made = _with(config, there)
    return made, f"  the network is that of {config.init.source}: {_told(config, made)}" if is_new else ""


def of(config: Config) -> Config:
    """The config with the network of its starting weights where `model.name` is "auto"; other configs as they are.

    Options of the network that have their default are taken from the weights, too, but those of training alone.

    Raises:
      UserError: the weights cannot be read or do not tell their network; or the config does not go with it.
    """
    return _with(config, _of_source(config)) if config.model.name == AUTO else config


def file_of(init: Init) -> tuple[pathlib.Path, dict[str, str]]:
    """The file of weights that a run starts from, and what its repository tells of it. Raises UserError."""
    kind, _, place = init.source.partition(":")
    if kind == "hub":
        return hub.fetch(place)
    return (released.find(place) if kind == "jaxcnn" else expand(place, "config.init.source=")), {}


def fact(facts: Mapping[str, str], name: str) -> Any:
    """A fact of a file; None if it is missing or invalid."""
    try:
        return json_text.parse(facts.get(name, "null"))
    except ValueError:
        return None


def norm_of(facts: Mapping[str, str]) -> Any:
    """The normalisation in the facts of a file; older files tell the epsilon alone."""
    return fact(facts, "norm") or {"epsilon": fact(facts, "norm_epsilon")}


def fitting(given: Mapping[str, np.ndarray], naming: str = fit.AUTO) -> list[Options]:
    """The published networks whose arrays are those of a file, but for the classes and the channels of the images.

    Args:
      given: the arrays of the file, by name.
      naming: `config.init.names`.
    """
    found = []
    for name in published.possible(given):
        model = published.network(name)
        module = models.build(model, configs.Norm(), 1)
        image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
        shapes = seals.leaves(jax.eval_shape(module.init, jax.random.key(0), image))
        drawn = {key: np.broadcast_to(np.float32(0), leaf.shape) for key, leaf in shapes}
        try:
            fitted = fit.fit(given, model, drawn, source="", naming=naming, new_head=True)
        except UserError:
            continue
        epsilon = None if fitted.naming == layout.OURS else names.EPSILONS.get(model.name)
        found.append({"model": published.options(name)} | ({"norm": {"epsilon": epsilon}} if epsilon else {}))
    return found


def tell_fitting(source: str, given: Mapping[str, np.ndarray], config: Config) -> None:
    """Raise a UserError that names the network of which the arrays of a file are, if the config has another one.

    Args:
      source: the weights, for messages.
      given: their arrays, by name.
      config: the config of the run, whose network they do not fit.
    """
    found = [] if source.startswith("workdir") else fitting(given, config.init.names)
    here = configs.flatten(same_network.options(config))
    others = [each for each in found if any(here[key] != value for key, value in configs.flatten(each).items())]
    if others and others == found:
        raise UserError(
            f"config.init.source={source:.250} is of another network than this {config.model.name}; set "
            f"{' or '.join(map(_flags, others))}"
        )


def _flags(there: Options) -> str:
    """The flags that make a network."""
    return " ".join(f"--config.{key}={value}" for key, value in configs.flatten(there).items())


def _of_workdir(folder: pathlib.Path) -> Options | None:
    """The network of the run that a workdir holds; None if it holds none."""
    if (folder / workdir.CONFIG).exists():
        return same_network.options(workdir.read_config(folder))
    return None


def _of_source(config: Config) -> Options:
    init = config.init
    kind, _, place = init.source.partition(":")
    if not init.source:
        return {"model": {"name": DRAWN}}
    if kind in ("workdir", "workdirs"):
        first = separate(place)[0] if kind == "workdirs" else place
        return same_network.options(workdir.read_config(expand(first, "config.init.source=")))
    path, facts = file_of(init)
    facts = facts | files.facts(path)
    norm = norm_of(facts)
    of_norm = {"norm": norm} if isinstance(norm, dict) and norm.get("epsilon") is not None else {}
    if isinstance(model := fact(facts, "model"), dict) and (name := model.get("name")):
        if name not in NETWORKS:  # a file may not name code to run
            raise UserError(
                f"config.init.source={init.source!r:.200} is of the network {shown(str(name)):.60}, which is not one "
                "of jaxcnn; set --config.model.name"
            )
        return {"model": model} | of_norm
    arrays, _ = files.read(path, init.half)
    found = fitting(arrays, init.names)
    if len(found) != 1:
        several = " or ".join(map(_flags, found))
        raise UserError(
            f"config.init.source={init.source!r:.200} does not tell its network, and its {len(arrays)} arrays are "
            f"those of {'several' if found else 'none with published weights'}; set {several or '--config.model.name'}"
        )
    return found[0] | of_norm


def _with(config: Config, there: Options) -> Config:
    """The config with the options of a network where it has none of its own, checked again."""
    changes = networks.taken(config.model, config.norm, there)
    made = configs.from_config_dict(configs.nested(configs.flatten(configs.to_dict(config)) | changes))
    plugins.check(made)
    return made


def _told(config: Config, made: Config) -> str:
    before, after = (configs.flatten(same_network.options(each)) for each in (config, made))
    changes = [f"{key}={value}" for key, value in after.items() if value != before[key] and key != "model.channels"]
    return " ".join(changes)
