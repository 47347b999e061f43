"""`jaxcnn.config`: a recipe, and what differs from it."""

import logging
import os
import pathlib
import runpy
from collections.abc import Mapping
from typing import Any, TypeAlias

import ml_collections

import jaxcnn.config as configs
from jaxcnn.config import Config, ConfigError, convert, networks, recipes, rules_of_tasks
from jaxcnn.machine import paths
from jaxcnn.machine.named import names_of

Recipe: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | ml_collections.ConfigDict | Config
_SOURCE = "data.source"
_log = logging.getLogger("jaxcnn")
# The configs that are the recipes of these networks; that of the others is `recipes.usual`.
_OF_NETWORK = {
    **{"airbench": "speedrun_cifar10", "airbench_residual": "speedrun_cifar100", "cnn": "quickstart"},
    **dict.fromkeys(networks.YOLO, "yolo_resnet18_coco"),
    **dict.fromkeys(networks.YOLOX, "yolox_s_coco"),
    **dict.fromkeys(networks.FASTER, "faster_rcnn_resnet18_coco"),
    **dict.fromkeys(networks.INSTANCES, "mask_rcnn_resnet18_coco"),
    **dict.fromkeys(networks.SEGMENTERS, "unet_masks"),
}


def config(recipe: Recipe, /, *, data: Any = None, model: Any = None, **changes: Any) -> ml_collections.ConfigDict:
    """A config: a recipe and what differs from it.

        jaxcnn.config("resnet50", data="folder:photos", epochs=5)
        jaxcnn.config("vgg16_cifar10:paper", learning_rate=0.002, optim={"weight_decay": 0.01})
        jaxcnn.config("quickstart", **{"norm.momentum": 0.95})

    Args:
      recipe: the name of any network ("resnet50", "vgg16", "yolo_resnet18", "unet", …), for the usual recipe of its
        kind, its task included; the name of a config that ships with jaxcnn or the path of a config file, with a
        `:variant` if wanted; or a config, which is copied.
      data: the source of the data, such as "folder:photos", "npz:set.npz", "digits" or "tfds:cifar10"; or a mapping of
        fields of `config.data`.
      model: the name of a network, or a mapping of fields of `config.model`. Here, and for every other open name, the
        class or function itself may be given, as in `optim={"name": optax.lion}`.
      changes: values of fields: by name (`epochs=5`; the usual short names such as `lr` are understood), by the full
        name (`**{"optim.learning_rate": 0.1}`), or a mapping of a whole group (`optim={"learning_rate": 0.1}`).

    Settings of the recipe that mean nothing for another task (`task={"name": "regression"}`) are left out, with a
    warning.

    Returns:
      A ConfigDict; its fields can be set, as in `config.run.epochs = 10`.

    Raises:
      ConfigError: an unknown recipe or field, or a value that is not possible; one line for each mistake.
    """
    source = data if isinstance(data, str) else None
    flat = configs.flatten(configs.to_dict(_recipe(recipe, source)))
    before, given = flat["task.name"], changed(flat, {"data": data, "model": model} | changes)
    flat |= given
    for line in rules_of_tasks.left_out(flat, before, given):
        _log.warning(line)
    if mistakes := networks.beside_auto(flat, given):
        raise ConfigError("\n".join(mistakes))
    return ml_collections.ConfigDict(configs.to_dict(configs.from_config_dict(configs.nested(flat))))


def changed(known: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The values of fields that keyword arguments give, by the full name of each field.

    Args:
      known: a flat config, which has the names of all fields.
      named: values by the names that `config` takes; objects become open names, and None is left out.

    Raises:
      ConfigError: there is no such field, or several.
    """
    flat: dict[str, Any] = {}
    for key, value in named.items():
        if value is None:
            continue
        if key in ("data", "model") and isinstance(value, str):
            flat[_SOURCE if key == "data" else "model.name"] = value
        elif isinstance(value, Mapping) and not any(key == field for field in known):
            for name, inner in configs.flatten(value).items():
                flat[key_of(f"{key}.{name}", known)] = inner
        elif key == "data" and callable(value):
            flat[_SOURCE] = names_of(value)
        elif key == "data":
            raise ConfigError(
                "data= is the name of a source, such as 'folder:photos', or fields of config.data; arrays are given to "
                "jaxcnn.train(config, workdir, data=(images, labels))"
            )
        elif key == "model":
            flat["model.name"] = names_of(value)
        else:
            flat[key_of(key, known)] = value
    return flat | {key: names_of(flat[key]) for key in configs.open_keys() if key in flat}


def checked(config: Recipe) -> Config:
    """The checked config of a ConfigDict, a mapping or a recipe.

    Raises:
      ConfigError: the config has mistakes.
    """
    if isinstance(config, Config):
        return config
    if isinstance(config, str | os.PathLike):
        return _recipe(config, None)
    if not isinstance(config, Mapping | ml_collections.ConfigDict):
        raise ConfigError(f"config must be what jaxcnn.config(…) returns, not {type(config).__name__}")
    return configs.from_config_dict(config)


def _recipe(recipe: Recipe, source: str | None) -> Config:
    if isinstance(recipe, Config):
        return recipe
    if isinstance(recipe, Mapping | ml_collections.ConfigDict):
        return configs.from_config_dict(recipe)
    if not isinstance(recipe, str | os.PathLike):
        raise ConfigError(f"a config is made from the name of a recipe or from a config, not {type(recipe).__name__}")
    name = os.fspath(recipe)
    file, _, variant = name.partition(":")
    if name in configs.choices("model.name"):
        if name not in _OF_NETWORK:
            return configs.from_config_dict(recipes.usual(name, source or Config().data.source))
        config = read(file_of(_OF_NETWORK[name]), variant)
        config.model.name = name
        return configs.from_config_dict(config)
    return configs.from_config_dict(read(file_of(file), variant))


def file_of(name: str) -> pathlib.Path:
    """The config file of a name or path."""
    if name.endswith(".py"):
        return paths.expand(name)
    try:
        return paths.shipped_config(name)
    except ConfigError:
        networks = configs.choices("model.name")
        shipped = [each for each in paths.shipped_configs() if not each.startswith("sweeps/")]
        raise ConfigError(
            f"there is no recipe {name!r}{convert.nearest(name, (*networks, *shipped))}; there are the networks "
            f"{', '.join(networks)}, the configs {', '.join(shipped)}, and files that end in .py"
        ) from None


def read(file: pathlib.Path, variant: str) -> ml_collections.ConfigDict:
    """The value that `get_config` in a config file returns."""
    if not file.is_file():
        raise ConfigError(f"{file}: this Python file does not exist")
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
    except SyntaxError as error:
        raise ConfigError(f"{file}: line {error.lineno}: {error.msg}") from None
    if get_config is None:
        raise ConfigError(f"{file} has no function get_config(variant='')")
    return get_config(variant) if variant else get_config()


def key_of(key: str, known: Mapping[str, Any]) -> str:
    """The full name of a field, such as "optim.learning_rate" for "learning_rate" or "lr"."""
    if key in known:
        return key
    if not isinstance(key, str):
        raise ConfigError(f"the name of a field is a text, such as 'optim.learning_rate', not {key!r:.100}")
    same = [each for each in known if each.endswith(f".{key}")] if "." not in key else []
    if len(same) == 1:
        return same[0]
    if same:
        which = " and ".join(f"config.{each}" for each in same)
        raise ConfigError(f"{key!r} is the name of {which}; give the group too, as in **{{{same[0]!r}: …}}")
    near = convert.usual_name(key, known)
    if near:
        return near
    meant = convert.nearest_key(key, known)
    raise ConfigError(f"there is no field {key!r}" + (f" (did you mean {meant!r}?)" if meant else ""))
