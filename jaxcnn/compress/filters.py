"""Structured pruning: removes filters from a trained network, which really becomes smaller.

It removes the filters of the smallest L1 norm (Li et al. 2017, arXiv:1608.08710), or of the smallest scale of the
BatchNorm that follows (network slimming, Liu et al. 2017, arXiv:1708.06519). Channels that are added leave together
(`jaxcnn.compress.joins`). The result is the same kind of network with other `model.channels`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Float

from jaxcnn.compress import joins
from jaxcnn.config import Init, UserError, networks
from jaxcnn.config.layers import Layers, check_patterns, number_of
from jaxcnn.learn import costs
from jaxcnn.learn.network import network, usual_sizes
from jaxcnn.machine import mesh as meshes
from jaxcnn.text import markdown_table
from jaxcnn.train import seals
from jaxcnn.train.trained import Trained

L1, NORM = "l1", "norm"


@dataclasses.dataclass(frozen=True)
class Keep:
    """Decides which filters stay.

    Attributes:
      share: share of the filters that stay, above 0 and at most 1.
      by: "l1", the norm of a filter divided by the mean norm of its layer; "norm", the scale of BatchNorm.
      scope: "layer", the share within each layer; "global", among all layers, by score. At least one
        filter of each layer stays.
      layers: pairs (pattern of layers, share), which come first; such a layer has no part in a global choice.
    """

    share: float = 0.5
    by: str = L1
    scope: str = "layer"
    layers: Layers = ()


@dataclasses.dataclass(frozen=True)
class Joined:
    """Filters among which a choice is made: those of layers whose channels are joined.

    Attributes:
      name: name of the first layer.
      channels: numbers of the channels.
      scores: score of each channel; None: none of its layers has a BatchNorm, so by="norm" leaves it whole.
    """

    name: str
    channels: np.ndarray
    scores: Float[np.ndarray, " channels"] | None


def slim(trained: Trained, keep: Keep) -> tuple[Trained, list[str]]:
    """The network without the filters of the lowest scores, not trained further, and remarks.

    Raises:
      UserError: the network has no `model.channels`, or GroupNorm; a pattern matches no layer; nothing would leave.
    """
    name = trained.config.model.name
    usual = usual_sizes(trained.spec)
    if not usual or name not in networks.readers("channels"):
        raise UserError(f"--method=filters is for {', '.join(networks.readers('channels'))}; {name} has no such option")
    if trained.config.model.attention != "none":
        raise UserError(
            f"--method=filters: this {name} has config.model.attention={trained.config.model.attention!r}, whose "
            "layers have shares of the channels; slim one without attention"
        )
    if trained.config.norm.name == "group":
        raise UserError(
            f"--method=filters: this {name} has config.norm.name='group', and with fewer channels its groups would be "
            "others; train it with norm.name='batch'"
        )
    found = joins.of(trained.spec)
    arrays = seals.on_host(trained.variables)
    groups = [each for group in found.groups() if (each := _joined(group, found, arrays, usual, keep.by)) is not None]
    groups.sort(key=lambda group: list(usual).index(group.name))
    names = [group.name for group in groups]
    what = f"layer; there are {', '.join(names[:12])}{', …' if len(names) > 12 else ''}"
    check_patterns("--layer_keep", (pattern for pattern, _ in keep.layers), names, what, UserError)
    if all(group.scores is None for group in groups):
        raise UserError(f"--by={NORM} needs BatchNorm, which this {name} has not; use --by={L1}")
    leaving = _chosen(groups, keep)
    if not leaving:
        raise UserError(f"--keep={keep.share:g} keeps every filter of {name}; lower it")
    whole = [group.name for group in groups if group.scores is None]
    remarks = [f"without BatchNorm, and so left whole: {', '.join(whole)}"] if whole else []
    return _smaller(trained, found.without(arrays, leaving), usual), remarks


def _joined(
    group: joins.Group, found: joins.Joins, arrays: dict[str, np.ndarray], usual: dict[str, int], by: str
) -> Joined | None:
    """The filters of a group of joined channels; None if none of its layers has channels of its own."""
    kernels = [(name, axis) for name, axis in group.places if axis == _axis_of_outputs(name, arrays)]
    layers = {name.removeprefix("params/").removesuffix("/kernel") for name, _ in kernels}
    first = next((layer for layer in usual if layer in layers), None)
    if first is None:
        return None
    channels, numbers = np.array(group.channels), np.zeros(len(group.channels))
    if by == L1:
        values = {name: _norms(arrays[name], axis) for name, axis in kernels}
        values = {name: norms / (norms.mean() or 1.0) for name, norms in values.items()}
    else:
        values = {name: np.abs(arrays[name]) for name, axis in group.places if _is_scale(name, arrays)}
    if not values:
        return Joined(first, channels, None)
    counts = np.zeros(len(channels))
    order = {channel: place for place, channel in enumerate(group.channels)}
    for name, scores in values.items():
        axis = _axis_of_outputs(name, arrays) or 0  # a scale has one axis
        for channel, score in zip(found.of[name][axis].tolist(), scores.tolist(), strict=True):
            if channel in order:
                numbers[order[channel]] += score
                counts[order[channel]] += 1
    return Joined(first, channels, numbers / counts)


def _axis_of_outputs(name: str, arrays: dict[str, np.ndarray]) -> int | None:
    """The axis of a kernel that has one entry for each filter; None if the array is not a kernel."""
    if not (name.startswith("params/") and name.endswith("/kernel")):
        return None
    return {4: 3, 2: 0}.get(arrays[name].ndim)


def _is_scale(name: str, arrays: dict[str, np.ndarray]) -> bool:
    mean = name.replace("params/", "batch_stats/", 1).removesuffix("scale") + "mean"
    return name.endswith("/scale") and mean in arrays


def _norms(kernel: np.ndarray, axis: int) -> Float[np.ndarray, " filters"]:
    others = tuple(each for each in range(kernel.ndim) if each != axis)
    return np.abs(kernel).sum(axis=others, dtype=np.float64)


def _chosen(groups: Sequence[Joined], keep: Keep) -> set[int]:
    """The channels to remove; of equal scores, the last ones first."""
    leaving: set[int] = set()
    pool: list[tuple[float, int, int]] = []  # (score, number of the group, channel)
    size = 0
    for number, group in enumerate(groups):
        if group.scores is None:
            continue
        own = number_of(group.name, keep.layers, -1.0)
        best = group.channels[np.argsort(-group.scores, kind="stable")].tolist()
        if own < 0 and keep.scope == "global":
            size += len(best)
            ordered = np.sort(group.scores)[::-1].tolist()
            pool += [(-score, number, channel) for score, channel in zip(ordered[1:], best[1:], strict=True)]
        else:
            leaving |= set(best[max(1, round((keep.share if own < 0 else own) * len(best))) :])
    pool.sort(key=lambda each: each[0])
    stay = round(keep.share * size) - (size - len(pool))  # in addition to the best one of each group
    return leaving | {channel for _, _, channel in pool[max(0, stay) :]}


def _smaller(trained: Trained, arrays: dict[str, np.ndarray], usual: dict[str, int]) -> Trained:
    """The network with these arrays, whose shapes give the channels of its layers."""
    sizes = {layer: arrays[name].shape[_axis_of_outputs(name, arrays)] for layer in usual for name in [_kernel(layer)]}  # type: ignore[index]
    channels = tuple((layer, size) for layer, size in sizes.items() if size != usual[layer])
    model = dataclasses.replace(trained.config.model, channels=channels)
    config = dataclasses.replace(trained.config, model=model, init=Init())
    spec = dataclasses.replace(trained.spec, model=model)
    made = jax.eval_shape(network(spec).init, jax.random.key(0), np.zeros((1, *spec.image_shape), np.float32))
    shapes = {name: leaf.shape for name, leaf in seals.leaves(made)}
    differ = [name for name, array in arrays.items() if shapes.get(name) != array.shape]
    if differ or len(shapes) != len(arrays):
        raise AssertionError(f"{model.name} with {channels} has other arrays than those that stay: {differ}")
    nested = traverse_util.unflatten_dict(arrays, sep="/")
    on_devices = jax.device_put({"batch_stats": {}} | nested, meshes.replicated(trained.mesh))
    return dataclasses.replace(trained, config=config, spec=spec, variables=on_devices, step=0, fitted={})


def _kernel(layer: str) -> str:
    return f"params/{layer}/kernel"


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of a network: its parameters, operations of one image (`jaxcnn.learn.costs`), bytes of its weights."""

    parameters: int
    flops: int
    size: int


def cost(trained: Trained) -> Cost:
    """The cost of a network."""
    layers = costs.layers(trained.spec)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(trained.variables))
    return Cost(sum(each.parameters for each in layers), sum(each.flops for each in layers), size)


def rows(before: Trained, after: Trained) -> list[dict[str, Any]]:
    """Channels, parameters and operations of one image of each layer with a kernel, before and after."""
    made = []
    for old, new in zip(costs.layers(before.spec), costs.layers(after.spec), strict=True):
        if old.flops:
            both: dict[str, Any] = {"layer": old.path}
            for when, layer in (("before", old), ("after", new)):
                both |= {f"channels_{when}": layer.output[-1], f"parameters_{when}": layer.parameters}
                both[f"flops_{when}"] = layer.flops
            made.append(both)
    return made


def table(layers: Sequence[dict[str, Any]]) -> list[str]:
    """The layers as lines of a Markdown table."""
    names = ("channels", "parameters", "flops")
    head = ["layer", *(f"{name}{when}" for name in ("channels", "parameters", "FLOPs") for when in ("", ", after"))]
    lines = [
        [each["layer"], *(f"{each[f'{name}_{when}']:,}" for name in names for when in ("before", "after"))]
        for each in layers
    ]
    return markdown_table(head, lines)
