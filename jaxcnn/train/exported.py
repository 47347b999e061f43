"""The weights of a trained network as a file for other libraries."""

import json
import pathlib

import numpy as np

import jaxcnn
from jaxcnn.config import UserError, to_dict
from jaxcnn.learn import quantized
from jaxcnn.learn.network import head_of
from jaxcnn.train import seals
from jaxcnn.train.trained import Trained
from jaxcnn.weights import files, layout


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
    """The facts that a user of the weights needs, as the metadata of the file: JSON texts."""
    config = trained.config
    told = {
        "class_names": list(trained.class_names),
        "image_shape": list(trained.spec.image_shape),
        "model": to_dict(config)["model"],
        "norm": to_dict(config)["norm"],
        "norm_epsilon": config.norm.epsilon,
        "step": trained.step,
    }
    if config.augment.normalize:  # without it, pixels count from 0 to 1
        for name, values in (("mean", trained.constants.mean), ("std", trained.constants.std)):
            told[name] = [float(x) for x in np.asarray(values)]
    return {"format": "pt", "made_by": f"jaxcnn {jaxcnn.__version__}"} | {
        name: json.dumps(value) for name, value in told.items()
    }
