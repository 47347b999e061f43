"""The weights of a trained network as a file for other libraries."""

import json
import pathlib
from typing import Any

import numpy as np

import jaxcnn
from jaxcnn.config import Config, UserError, flatten, nested, to_dict
from jaxcnn.learn import quantized
from jaxcnn.learn.network import head_of
from jaxcnn.train import seals
from jaxcnn.train.trained import Trained
from jaxcnn.weights import files, layout

_READ = ("channels", "dtype", "image_size", "resize", "grey16_max", "max_megapixels")  # fields of config.data
_OF_TRAINING = ("task.teacher", "task.weights_by_name", "norm.group_size", "norm.momentum")


def write(trained: Trained, naming: str, path: pathlib.Path) -> int:
    """Write a safetensors file; return the number of arrays.

    Raises:
      UserError: the naming has no such network, or the file cannot be written.
    """
    flat = seals.on_host(quantized.without_ranges(trained.variables))
    model, shapes = trained.config.model, {key: value.shape for key, value in flat.items()}
    leaves = layout.leaves(naming, model, shapes, head_of(trained.spec))
    if leaves is None:
        raise UserError(
            f"--names={naming}: it has no network {model.name!r} of this form (batch_norm={model.batch_norm}, "
            f"form={model.form!r}); use --names=jaxcnn"
        )
    arrays = {leaf.theirs[0]: layout.to_theirs(naming, leaf, flat[leaf.key]) for leaf in leaves}
    files.write(path, arrays, facts(trained) | {"names": naming})
    return len(arrays)


def facts(trained: Trained) -> dict[str, str]:
    """The facts that a user of the weights needs, as the metadata of the file: JSON texts.

    "resize", "task" and "image_dtype" say what an image is and what the answer is. "config" has the other
    fields that `of_facts` needs to build the network, if they differ from their defaults; "fitted" what was fitted to
    validation with these weights, such as a temperature; "constants" the arrays of the task, such as the scale of a
    regression.
    """
    config = trained.config
    told: dict[str, Any] = {
        "class_names": list(trained.class_names),
        "image_shape": list(trained.spec.image_shape),
        "model": to_dict(config)["model"],
        "norm": to_dict(config)["norm"],
        "norm_epsilon": config.norm.epsilon,
        "step": trained.step,
        "task": config.task.name,
        "image_dtype": trained.spec.image_dtype,
        "resize": config.data.resize if config.data.image_size else "none: images have this size already",
        "config": _differing(config),
    }
    if trained.fitted:
        told["fitted"] = trained.fitted
    if trained.constants.task:
        told["constants"] = {name: np.asarray(value).tolist() for name, value in trained.constants.task.items()}
    if config.augment.normalize:  # without it, pixels count from 0 to 1
        for name, values in (("mean", trained.constants.mean), ("std", trained.constants.std)):
            told[name] = [float(x) for x in np.asarray(values)]
    return {"format": "pt", "made_by": f"jaxcnn {jaxcnn.__version__}"} | {
        name: json.dumps(value) for name, value in told.items()
    }


def _differing(config: Config) -> dict[str, Any]:
    """The fields outside `config.model` that define the network or how images are read, if they are not defaults."""
    mine, default = (flatten(to_dict(each)) for each in (config, Config()))
    wanted = [f"data.{name}" for name in _READ] + ["augment.normalize"]
    wanted += [key for key in mine if key.startswith(("norm.", "task.")) and key not in _OF_TRAINING]
    return nested({key: mine[key] for key in wanted if mine[key] != default[key]})
