"""The placement of a state's arrays on the mesh: split over `model` by rules, and over `data` to save memory.

Data parallelism keeps everything on every device. Rajbhandari et al. 2019, "ZeRO" (arXiv:1910.02054), splits what only
the update needs: with `shard_optimizer` the optimiser's state and the moving average (stage 1), with `shard_params` the
parameters as well (stage 3, "fully sharded"). Each array is split by itself, along its longest axis that divides
evenly. Biases and the vectors of BatchNorm, some thousandths of all parameters, stay whole, because each would
need its own collectives. A kernel without an axis that divides evenly stays whole, too.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from flax.typing import Collection
from jax.sharding import Mesh, NamedSharding

from jaxcnn.config import ConfigError
from jaxcnn.learn.network import split_layers
from jaxcnn.learn.state import State
from jaxcnn.learn.step_spec import StepSpec
from jaxcnn.machine.mesh import DATA_AXIS, data_devices, model_devices


@dataclasses.dataclass(frozen=True)
class Layout:
    """The way in which parameters, and all arrays of their shapes, are split: trees of `PartitionSpec`.

    Attributes:
      step: partition in the forward and backward pass.
      update: partition of the summed gradients, the optimiser's state and the moving average.
      kept: partition of the parameters between steps.
    """

    step: Collection
    update: Collection
    kept: Collection


def of_params(spec: StepSpec, mesh: Mesh, params: Collection) -> Layout:
    """The layout of parameters with these shapes.

    Raises:
      ConfigError: `model_devices` does not divide the channels of a wide layer.
    """
    _check(spec, mesh, params)
    over_model = _over_model(spec, mesh)
    step = jax.tree_util.tree_map_with_path(lambda path, _: over_model.get("/".join(_keys(path)), jax.P()), params)
    cut = jax.tree.map(lambda leaf, partition: cut_over_data(leaf.shape, partition, mesh), params, step)
    return Layout(
        step=step,
        update=cut if spec.shard_optimizer else step,
        kept=cut if spec.shard_params else step,
    )


def of_state(spec: StepSpec, mesh: Mesh, state: State) -> State:
    """The `NamedSharding` of each array of a state, as a `State`; only the shapes of `state` are read."""
    layout = of_params(spec, mesh, state.params)
    names = (_keys(path) for path, _ in jax.tree_util.tree_flatten_with_path(state.params)[0])
    pairs = zip(jax.tree.leaves(state.params), jax.tree.leaves(layout.update), strict=True)
    update = {name: (leaf.shape, partition) for name, (leaf, partition) in zip(names, pairs, strict=True)}

    def on_mesh(partition: jax.P) -> NamedSharding:
        return NamedSharding(mesh, partition)

    def like_parameter(path: Sequence[Any], leaf: Any) -> NamedSharding:
        # The trees that an optimiser keeps, such as momenta, have the parameters' names at the end of their paths. What
        # has a parameter's name, but another shape, such as the sums of its rows, is kept whole.
        keys = _keys(path)
        found = (update[keys[i:]] for i in range(len(keys)) if keys[i:] in update)
        shape, partition = next(found, (leaf.shape, jax.P()))
        return on_mesh(partition if shape == leaf.shape else jax.P())

    whole: Any = jax.tree.map(lambda _: on_mesh(jax.P()), state)
    ema = state.ema and {**whole.ema, "params": jax.tree.map(on_mesh, layout.update)}
    opt_state = jax.tree_util.tree_map_with_path(like_parameter, state.opt_state)
    return dataclasses.replace(whole, params=jax.tree.map(on_mesh, layout.kept), opt_state=opt_state, ema=ema)


def cut_over_data(shape: tuple[int, ...], partition: jax.P, mesh: Mesh) -> jax.P:
    """A partition that also splits over `data`: the axis that is longest on a device, of those that divide evenly."""
    devices = data_devices(mesh)
    axes = [*partition, *[None] * (len(shape) - len(partition))]
    local = [size // (model_devices(mesh) if axis else 1) for size, axis in zip(shape, axes, strict=True)]
    fitting = [i for i, size in enumerate(local) if size % devices == 0]
    if devices == 1 or len(shape) < 2 or not fitting:
        return partition
    longest = max(fitting, key=lambda i: local[i])
    axes[longest] = (axes[longest], DATA_AXIS) if axes[longest] else DATA_AXIS
    return jax.P(*axes)


def data_dimension(partition: jax.P) -> int | None:
    """The axis along which an array is split over `data`; None if it is not."""
    return next((i for i in range(len(partition)) if DATA_AXIS in _names(partition[i])), None)


def is_over(partition: jax.P, axis_name: str) -> bool:
    """Whether an array is split over a mesh axis."""
    return any(axis_name in _names(axis) for axis in partition)


def describe(spec: StepSpec, mesh: Mesh, params: Collection) -> list[str]:
    """Lines that tell the user what is split over `model` and what over `data`; [] if nothing is."""
    lines, shapes = [], _shapes(params)
    if model_devices(mesh) > 1:
        over_model = {name: each for name, each in _over_model(spec, mesh).items() if name in shapes}
        for partition in dict.fromkeys(over_model.values()):
            names = [name for name, each in over_model.items() if each == partition]
            sizes = [f"{name} {list(shapes[name])}" for name in names]
            lines.append(f"{partition} over {model_devices(mesh)} devices: {', '.join(sizes)}")
    if spec.shard_optimizer and data_devices(mesh) > 1:
        what = "parameters and the optimiser's state" if spec.shard_params else "the optimiser's state"
        update = jax.tree.leaves(of_params(spec, mesh, params).update)
        leaves = zip(jax.tree.leaves(params), update, strict=True)
        whole = sum(leaf.size for leaf, partition in leaves if not is_over(partition, DATA_AXIS))
        lines.append(f"{what} cut into {data_devices(mesh)} parts over data, except for {whole:,} parameters")
    return lines


def _check(spec: StepSpec, mesh: Mesh, params: Collection) -> None:
    devices, over_model = model_devices(mesh), _over_model(spec, mesh)
    for name, shape in _shapes(params).items():
        for size, axis in zip(shape, over_model.get(name, jax.P()), strict=False):  # the partition may name fewer axes
            if axis and size % devices:
                raise ConfigError(
                    f"config.parallel.model_devices={devices} does not divide the {size} channels of {name}; change it"
                )


def _over_model(spec: StepSpec, mesh: Mesh) -> dict[str, jax.P]:
    """The parameters that are split over `model`, by path, and their partitions."""
    return split_layers(spec) if model_devices(mesh) > 1 else {}


def _names(axis: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes over which one axis of an array is split."""
    return axis if isinstance(axis, tuple) else (axis,) if axis else ()


def _by_name(tree: Collection) -> list[tuple[str, Any]]:
    return [("/".join(_keys(path)), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _shapes(params: Collection) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in _by_name(params)}


def _keys(path: Sequence[Any]) -> tuple[str, ...]:
    """The names of the dictionaries at the end of a path."""
    keys: list[str] = []
    for part in reversed(path):
        if not isinstance(part, jax.tree_util.DictKey):
            break
        keys.insert(0, str(part.key))
    return tuple(keys)
