"""Networks of users: a `flax.linen` or `flax.nnx` module behind the interface of our own networks."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import VariableDict

import jaxcnn.config as config
from jaxcnn.config import UserError, networks
from jaxcnn.machine import plugins
from jaxcnn.models import context, linen_layers
from jaxcnn.models.network import Images, Logits, Positions

KIND = "networks"  # the group of the entry points
TRAIN = ("train", "training", "is_training")  # the names under which a network may take whether it is trained
EVALUATE = ("deterministic", "use_running_average")  # the names of arguments for the opposite
OUTPUTS = ("outputs", "num_classes", "num_outputs")
GIVEN = ("form", "width", "head", "batch_norm", "dropout", "zero_init_residual")  # fields of config.model
# The others are given only if they are set: a network that has an argument of that name also has a default of its own.
OPTIONAL = tuple(dict.fromkeys((*GIVEN, *itertools.chain(*networks.OPTIONS.values()))))
COLLECTIONS = {"params", "batch_stats"}


@dataclasses.dataclass(frozen=True)
class OwnNetwork:
    """A network of a user, called like our own networks.

    Inside of it, the layers of `jaxcnn.layers` know the run, and those of Flax are adapted (`linen_layers`).

    Attributes:
      name: open name of the network.
      module: the Flax module.
      outputs: the number of outputs it must have.
      surroundings: context that its layers may ask for.
    """

    name: str
    module: nn.Module
    outputs: int
    surroundings: context.Context

    @property
    def HEAD(self) -> str:  # a class variable of our networks
        """The path of the layer that makes the outputs, if the class has it; else empty."""
        return getattr(self.module, "HEAD", "")

    def init(self, key: Any, images: Images) -> VariableDict:
        """The initial variables of the network."""
        made = self._call(self.module.init_with_output, ({"params": key, "dropout": key}, images), None, False)
        self._checked(made[0], images)
        variables = made[1]
        if others := sorted(variables.keys() - COLLECTIONS):
            raise UserError(
                f"the network {self.name!r} has variables in {', '.join(others)}; it may have params and batch_stats"
            )
        return variables

    def apply(
        self,
        variables: VariableDict,
        images: Images,
        positions: Positions | None = None,
        train: bool = False,
        rngs: Mapping[str, Any] | None = None,
        mutable: Any = False,
    ) -> Any:
        """The outputs of images, and the changed collections if any are `mutable`."""
        options = {"rngs": rngs, "mutable": mutable}
        result = self._call(self.module.apply, (variables, images), positions, train, **options)
        outputs, changed = result if mutable is not False else (result, None)
        outputs = self._checked(outputs, images)
        return outputs if changed is None else (outputs, changed)

    def _call(self, method: Any, inputs: tuple[Any, ...], positions: Positions | None, train: bool, **options) -> Any:
        surroundings = dataclasses.replace(self.surroundings, positions=positions)
        told = {**dict.fromkeys(TRAIN, train), **dict.fromkeys(EVALUATE, not train), "positions": positions}
        taken = inspect.signature(self.module.__call__).parameters
        told = {name: value for name, value in told.items() if name in taken}
        with context.within(surroundings), nn.intercept_methods(linen_layers.adapted(self.name, train)):
            try:
                return method(*inputs, **told, **options)
            except UserError:
                raise
            except Exception as error:
                error.add_note(f"This is from the network {self.name!r}, called with images {inputs[1].shape}.")
                raise

    def _checked(self, outputs: Any, images: Images) -> Logits:
        shape, batch = getattr(outputs, "shape", None), images.shape[0]  # a symbol in a file for any batch size
        if shape != (batch, self.outputs):
            raise UserError(
                f"the network {self.name!r} gives {_shape(outputs)} for {batch} images; it must give "
                f"({batch}, {self.outputs}), one output for each of the {self.outputs} classes or numbers"
            )
        return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))


def _shape(outputs: Any) -> str:
    return str(getattr(outputs, "shape", f"a {type(outputs).__name__}"))


def build(model: config.Model, norm: config.Norm, outputs: int, axis_name: str | None) -> OwnNetwork:
    """The network of a user that `model` names; arguments as for `jaxcnn.models.build`.

    Raises:
      UserError: the name leads to no network, or to one that does not take what the config says.
    """
    loaded = plugins.load(KIND, model.name)
    module = _module(loaded, model, norm, outputs, axis_name)
    return OwnNetwork(model.name, module, outputs, context.Context(norm, axis_name))


def _module(
    loaded: plugins.Loaded, model: config.Model, norm: config.Norm, outputs: int, axis_name: str | None
) -> nn.Module:
    if isinstance(loaded.target, nn.Module):
        _refuse_unused(loaded, model, ())
        return loaded.target
    if not callable(loaded.target):
        raise UserError(f"{loaded.name!r} is neither a Flax module nor a function that makes one")
    from jaxcnn.models import nnx_bridge  # imports flax.nnx

    if nnx_bridge.is_made(loaded.target):
        raise UserError(
            f"{loaded.name!r} is an instance of a flax.nnx module, which has its parameters already; give its class, "
            "or a function of rngs that makes it, so that the run draws them from its seed"
        )
    offered = {name: getattr(model, name) for name in OPTIONAL if name in GIVEN or _is_set(model, name)}
    offered |= dict.fromkeys(OUTPUTS, outputs)
    offered |= {"dtype": jnp.dtype(model.dtype), "model": model, "norm": norm, "axis_name": axis_name}
    make = loaded.with_those(offered)
    _refuse_unused(loaded, model, make.keywords)  # type: ignore[attr-defined]
    if nnx_bridge.is_network(loaded.target):
        return nnx_bridge.as_linen(make)
    try:
        made = make()
    except TypeError as error:
        if not inspect.isroutine(loaded.target) and not isinstance(loaded.target, type | functools.partial):
            what = f"is an object of {type(loaded.target).__name__}"
            raise UserError(f"{loaded.name!r} {what}, neither a Flax module nor a function that makes one") from error
        raise UserError(f"the network {loaded.name!r} cannot be made: {error}") from error
    if not isinstance(made, nn.Module):
        raise UserError(f"{loaded.name!r} makes a {type(made).__name__}, not a Flax module")
    return made


def _refuse_unused(loaded: plugins.Loaded, model: config.Model, taken: Any) -> None:
    """Refuse fields of the config that the network does not take."""
    if "model" in taken:
        return
    for name in (*OPTIONAL, "dtype"):
        value = getattr(model, name)
        if _is_set(model, name) and name in loaded.options:
            raise UserError(
                f"config.model.{name}={value!r} has no effect: {loaded.name!r} gives {name}, too; leave one of them out"
            )
        if _is_set(model, name) and name not in taken:
            raise UserError(f"config.model.{name}={value!r} has no effect: {loaded.name!r} has no argument {name!r}")


def _is_set(model: config.Model, name: str) -> bool:
    return getattr(model, name) != getattr(config.Model, name)


def frozen(name: str) -> Any:
    """The patterns of parameters that a network never trains, from its class variable FROZEN."""
    return getattr(plugins.load(KIND, name).target, "FROZEN", ())
