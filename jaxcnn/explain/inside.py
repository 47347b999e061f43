"""The inside of a network, read from its JAX program: its ReLUs, and the feature maps of its layers.

A network here is any function of variables and images. It is traced to a jaxpr, which is then evaluated operation by
operation; so no hooks are needed, and it does not matter which library made the network.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jaxtyping import Array, Float

from jaxcnn.config import UserError
from jaxcnn.explain.named_layers import named, not_small

Apply = Callable[[Any, Any], Any]  # (variables, images "b h w c") -> outputs "b k"
Maps = Float[Array, "b h w c"]
_INLINED = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr"}
Test = Callable[[JaxprEqn], bool]
Rule = Callable[[JaxprEqn, list[Any]], list[Any] | None]  # the results of an operation, or None: as usual


# Evaluation


def evaluate(jaxpr: Jaxpr, constants: Sequence[Any], inputs: Sequence[Any], rule: Rule) -> list[Any]:
    """The outputs of a jaxpr, whose operations a rule may replace; calls of other jaxprs are inlined."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)
    for equation in jaxpr.eqns:
        read = [each.val if isinstance(each, Literal) else values[each] for each in equation.invars]
        made = rule(equation, read)
        if made is None and (name := _INLINED.get(equation.primitive.name)):
            inner = equation.params[name]
            jaxpr_of, held = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
            made = evaluate(jaxpr_of, held, read, rule)
        if made is None:
            found = equation.primitive.bind(*read, **equation.primitive.get_bind_params(equation.params))
            made = list(found) if equation.primitive.multiple_results else [found]
        values |= zip(equation.outvars, made, strict=True)
    return [each.val if isinstance(each, Literal) else values[each] for each in jaxpr.outvars]


def traced(apply: Apply, variables: Any, images: Any) -> tuple[ClosedJaxpr, list[Any]]:
    """The jaxpr of a call, and its inputs in order."""
    return jax.make_jaxpr(apply)(variables, images), jax.tree.leaves((variables, images))


# ReLU


@jax.custom_vjp
def _guided_relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.maximum(x, 0)


def _guided_backward(x: Float[Array, "..."], dy: Float[Array, "..."]) -> tuple[Float[Array, "..."]]:
    return (jnp.where(x > 0, jnp.maximum(dy, 0), 0),)


_guided_relu.defvjp(lambda x: (jnp.maximum(x, 0), x), _guided_backward)


def guided(apply: Apply) -> Apply:
    """The same network with ReLUs that pass only positive gradients back.

    Springenberg et al. 2015, arXiv:1412.6806. A ReLU is `jax.nn.relu` or a maximum of an array and 0. Other functions
    keep their gradient, also `jax.nn.relu6` and `hard_swish`. Raises UserError when it is called, if there is no ReLU.
    """

    def call(variables: Any, images: Any) -> Any:
        closed, inputs = traced(apply, variables, images)
        found: list[None] = []
        outputs = evaluate(closed.jaxpr, closed.consts, inputs, _guiding(found))
        if not found:
            raise UserError("guided backpropagation changes the gradient of ReLUs, and this network has none")
        return outputs[0]

    return call


def _guiding(found: list[None]) -> Rule:
    """The rule that replaces ReLUs, and appends to `found` for each."""

    def rule(equation: JaxprEqn, read: list[Any]) -> list[Any] | None:
        place = _relu_input(equation)
        if place is not None:
            found.append(None)
            return [_guided_relu(read[place])]
        if equation.primitive.name == "cond":  # also a choice by platform
            branches = tuple(_guided_branch(branch, found) for branch in equation.params["branches"])
            return list(equation.primitive.bind(*read, **(equation.params | {"branches": branches})))
        is_relu = lambda inner: _relu_input(inner) is not None  # noqa: E731
        if equation.primitive.name not in _INLINED and hides(equation, is_relu, _is_activation):
            raise UserError(
                f"guided backpropagation: a ReLU lies inside the operation {equation.primitive.name!r}, where it "
                "cannot be changed; write this part of the network as a Python loop, or leave the method out"
            )
        return None

    return rule


def hides(equation: JaxprEqn, is_wanted: Test, is_closed: Test = lambda equation: False) -> bool:
    """Whether an operation has a wanted one inside, at any depth, but not inside one that is closed."""
    inner = [] if is_closed(equation) else [each for jaxpr in _inner(equation) for each in jaxpr.eqns]
    return any(is_wanted(each) or hides(each, is_wanted, is_closed) for each in inner)


def _is_activation(equation: JaxprEqn) -> bool:
    """Whether an operation is a function of one array, such as `jax.nn.relu6`, whose derivative has its own rule."""
    large = sum(len(_shape(each)) > 1 for each in equation.invars)  # parameters of channels are not
    return equation.primitive.name in ("custom_jvp_call", "custom_vjp_call") and large == 1


def _guided_branch(branch: ClosedJaxpr, found: list[None]) -> ClosedJaxpr:
    def call(*inputs: Any) -> list[Any]:
        return evaluate(branch.jaxpr, branch.consts, inputs, _guiding(found))

    before = len(found)
    made = jax.make_jaxpr(call)(*branch.in_avals)
    return made if len(found) > before else branch


def _relu_input(equation: JaxprEqn) -> int | None:
    """The place of the input of an operation that is a ReLU; None if it is another operation."""
    if equation.primitive.name == "max" and len(_shape(equation.outvars[0])) > 1:
        zero = [isinstance(each, Literal) and np.ndim(each.val) == 0 and each.val == 0 for each in equation.invars]
        return zero.index(False) if any(zero) and not all(zero) else None
    if equation.primitive.name != "custom_jvp_call" or len(equation.invars) != 1:
        return None
    inner = equation.params["call_jaxpr"].jaxpr
    while len(inner.eqns) == 1 and inner.eqns[0].primitive.name in _INLINED:
        inner = inner.eqns[0].params["jaxpr"].jaxpr
    alone = len(inner.eqns) == 1 and inner.eqns[0].primitive.name == "max"
    return 0 if alone and _relu_input(inner.eqns[0]) is not None else None


# Layers


@dataclasses.dataclass(frozen=True)
class Layer:
    """The feature maps of a layer.

    Attributes:
      name: its path, such as "conv3" or "block4_3".
      number: number of the operation that computes them, among all operations of the network.
      shape: (h, w, c).
    """

    name: str
    number: int
    shape: tuple[int, int, int]


def layers(apply: Apply, variables: Any, image_shape: tuple[int, int, int]) -> list[Layer]:
    """The layers of a network that have feature maps of more than one position, in order.

    A layer has the path of its parameters, or of its Flax module. Its maps are taken after the activation function that
    directly follows it.
    """
    images = jax.ShapeDtypeStruct((2, *image_shape), _float_type(variables))
    closed, _ = _abstract(apply, variables, images)
    paths = paths_of(variables)
    prefixes = {"/".join(path[:end]) for path in paths for end in range(1, len(path))}
    owner = {var: "/".join(path[:-1]) for var, path in zip(closed.jaxpr.invars, paths, strict=False)}
    state = Naming(owner, prefixes, set(closed.jaxpr.invars[len(paths) :]))
    for number, equation in enumerate(operations(closed.jaxpr, state)):
        state.see(number, equation)
    return sorted(state.found.values(), key=lambda layer: layer.number)


def _float_type(variables: Any) -> Any:
    """float64 if the variables are, else float32."""
    widest = [leaf.dtype for leaf in jax.tree.leaves(variables) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.result_type(jnp.float32, *widest)


def _abstract(apply: Apply, variables: Any, images: Any) -> tuple[ClosedJaxpr, Any]:
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    return jax.make_jaxpr(apply, return_shape=True)(shapes, images)


def paths_of(variables: Any) -> list[tuple[str, ...]]:
    """The path of each variable, in the order of the leaves; without its collection, if they have any ("params")."""
    first = 1 if isinstance(variables, Mapping) and "params" in variables else 0
    return [
        tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in keys[first:])
        for keys, _ in jax.tree_util.tree_flatten_with_path(variables)[0]
    ]


@dataclasses.dataclass
class Naming:
    """Which layer each operation belongs to, as they are met in order."""

    owner: dict[Any, str]  # the layer of values that come from one parameter alone
    prefixes: set[str]  # paths of layers and modules that have parameters
    of_images: set[Any]  # values that depend on the images
    current: str = ""
    found: dict[str, Layer] = dataclasses.field(default_factory=dict)

    def alias(self, inner: Any, outer: Any) -> None:
        """A value of a called jaxpr is one of its caller, or the other way round."""
        if not isinstance(outer, Literal):
            if outer in self.owner:
                self.owner[inner] = self.owner[outer]
            if outer in self.of_images:
                self.of_images.add(inner)

    def see(self, number: int, equation: JaxprEqn) -> None:
        """Take in the next operation."""
        inputs = [each for each in equation.invars if not isinstance(each, Literal)]
        owners = [self.owner[each] for each in inputs if each in self.owner]
        if not any(each in self.of_images for each in inputs):
            if owners:
                self.owner |= dict.fromkeys(equation.outvars, owners[0])
            return
        self.of_images.update(equation.outvars)
        if owners:
            self.current = owners[0]
        module = str(equation.source_info.name_stack).partition("/")[2]
        named = bool(owners) or module in self.prefixes
        name = self.current if owners or module not in self.prefixes else module
        if module in self.prefixes and not owners:
            self.current = module
        shape = _shape(equation.outvars[0]) if len(equation.outvars) == 1 else ()
        if len(shape) != 4 or shape[0] != 2 or math.prod(shape[1:3]) == 1 or not name:
            return
        before = self.found.get(name)
        if named or (before and before.shape == shape[1:]):
            self.found.pop(name, None)
            self.found[name] = Layer(name, number, (shape[1], shape[2], shape[3]))


def operations(jaxpr: Jaxpr, naming: Naming) -> Iterator[JaxprEqn]:
    """The operations of a jaxpr in the order in which `evaluate` meets them, those of inlined calls among them."""
    for equation in jaxpr.eqns:
        if name := _INLINED.get(equation.primitive.name):
            inner = equation.params[name]
            inner = inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner
            for inside, outside in zip(inner.invars, equation.invars, strict=True):
                naming.alias(inside, outside)
            yield from operations(inner, naming)
            for outside, inside in zip(equation.outvars, inner.outvars, strict=True):
                naming.alias(outside, inside)
        else:
            yield equation


def choose(found: Sequence[Layer], name: str = "", *, coarser: bool = False) -> Layer:
    """The layer of this name; without one, the last whose maps have at least 4x4 positions, or else the last.

    `coarser`: of these, the last with fewer positions than the finest, if there is one.

    Raises:
      UserError: there is no such layer, or none with feature maps.
    """
    if not found:
        raise UserError("this network has no layer with feature maps of more than one position")
    if name:
        return named(found, name, "layer {} with feature maps")
    left = not_small(found)
    finest = max(layer.shape[0] * layer.shape[1] for layer in left)
    return ([layer for layer in left if coarser and layer.shape[0] * layer.shape[1] < finest] or left)[-1]


def tapped(apply: Apply, layer: Layer) -> Callable[[Any, Any, Maps | None], tuple[Any, Maps]]:
    """`(variables, images, change) -> (outputs, maps)`: the outputs after a change is added to the maps of a layer."""

    def call(variables: Any, images: Any, change: Maps | None) -> tuple[Any, Maps]:
        closed, inputs = traced(apply, variables, images)
        count, maps = iter(range(1 << 62)), []

        def rule(equation: JaxprEqn, read: list[Any]) -> list[Any] | None:
            if equation.primitive.name in _INLINED or next(count) != layer.number:
                return None
            made = equation.primitive.bind(*read, **equation.primitive.get_bind_params(equation.params))
            made = made[0] if equation.primitive.multiple_results else made
            maps.append(made)
            return [made if change is None else made + change.astype(made.dtype)]

        return evaluate(closed.jaxpr, closed.consts, inputs, rule)[0], maps[0]

    return call


def order_of_use(apply: Apply, variables: Any, image_shape: tuple[int, int, int]) -> list[str]:
    """The paths of the layers with variables, in the order in which images meet them."""
    images = jax.ShapeDtypeStruct((1, *image_shape), _float_type(variables))
    closed, _ = _abstract(apply, variables, images)
    paths = paths_of(variables)
    owner = {var: "/".join(path[:-1]) for var, path in zip(closed.jaxpr.invars, paths, strict=False)}
    naming = Naming(dict(owner), set(), set(closed.jaxpr.invars[len(paths) :]))
    order: dict[str, None] = {}
    for equation in operations(closed.jaxpr, naming):
        inputs = [each for each in equation.invars if not isinstance(each, Literal)]
        before = [naming.owner[each] for each in inputs if each in naming.owner]
        naming.see(0, equation)
        if before and equation.outvars[0] in naming.of_images:
            order |= dict.fromkeys(before)
    return [*order, *(path for path in dict.fromkeys(owner.values()) if path not in order)]


def bytes_of_image(apply: Apply, variables: Any, image_shape: tuple[int, int, int]) -> int:
    """An upper bound on the memory for one image while an output is differentiated, in bytes.

    All values of the forward pass, twice, for they may be kept and each has a gradient; and the largest temporary
    values inside an operation, such as the patches of a convolution, twice as well.
    """
    batch = 8  # small batches may be computed by another method than large ones
    images = jax.ShapeDtypeStruct((batch, *image_shape), _float_type(variables))
    closed, _ = _abstract(apply, variables, images)
    of_variables = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables))
    kept, temporary = _bytes(closed.jaxpr)
    return max(1, (2 * kept + 2 * temporary - of_variables) // batch)


def _bytes(jaxpr: Jaxpr) -> tuple[int, int]:
    """The bytes of all values of a jaxpr, and those of the operation that has most inside."""
    kept, inside = 0, 0
    for equation in jaxpr.eqns:
        kept += sum(_size(each) for each in equation.outvars)
        for inner in _inner(equation):
            inside = max(inside, sum(_bytes(inner)))
    return kept, inside


def _size(variable: Any) -> int:
    return math.prod(_shape(variable)) * getattr(getattr(variable.aval, "dtype", None), "itemsize", 0)


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())


def _inner(equation: JaxprEqn) -> Iterator[Jaxpr]:
    for value in equation.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, Jaxpr):
                yield each
