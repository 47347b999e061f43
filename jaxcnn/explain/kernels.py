"""The products of a network's values and its kernels, convolutions and dense layers, each of which may be replaced."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal
from jaxtyping import Array, Float

from jaxcnn.config import UserError
from jaxcnn.explain import inside
from jaxcnn.models import convolution

_PRODUCTS = ("conv_general_dilated", "dot_general", "custom_vjp_call")  # the last: jaxcnn's own of both kinds
Product = Callable[[Array, Array], Array]  # (values, kernel) -> values; linear in both
Call = Callable[..., Any]  # (variables, …) -> any pytree


def replaced(call: Call, layer: Callable[[Product], Product], every: str = "") -> Call:
    """The same function with `layer(product)` in place of each product of a value of images and a kernel.

    With `every`, the name of a method for people, a product that cannot be replaced, because it lies inside an
    operation such as a scan, raises UserError when the function is called.
    """

    def replacing(variables: Any, *given: Any) -> Any:
        closed, made = jax.make_jaxpr(call, return_shape=True)(variables, *given)
        places = _places(closed, len(jax.tree.leaves(variables)), every)

        def rule(equation: JaxprEqn, read: list[Any]) -> list[Any] | None:
            place = places.get(id(equation))
            if place is None:
                return None

            def product(values: Array, kernel: Array) -> Array:
                pair = (kernel, values) if place == 0 else (values, kernel)
                found = equation.primitive.bind(*pair, **equation.primitive.get_bind_params(equation.params))
                return found[0] if equation.primitive.multiple_results else found

            return [layer(product)(read[1 - place], read[place])]

        outputs = inside.evaluate(closed.jaxpr, closed.consts, jax.tree.leaves((variables, given)), rule)
        return jax.tree.unflatten(jax.tree.structure(made), outputs)

    return replacing


def _places(closed: ClosedJaxpr, variables: int, every: str) -> dict[int, int]:
    """The place of the kernel among the two inputs of each product, by the id of its operation; see `replaced`."""
    inputs = closed.jaxpr.invars
    naming = inside.Naming(dict.fromkeys(inputs[:variables], "kernel"), set(), set(inputs[variables:]))
    found = {}
    for equation in inside.operations(closed.jaxpr, naming):
        if equation.primitive.name in _PRODUCTS and len(equation.invars) == 2:
            of_images = [not isinstance(each, Literal) and each in naming.of_images for each in equation.invars]
            place = of_images.index(False) if sum(of_images) == 1 else -1
            other = equation.invars[place]
            is_kernel = not isinstance(other, Literal) and other in naming.owner
            if place >= 0 and is_kernel and len(getattr(other.aval, "shape", ())) > 1:
                found[id(equation)] = place
        if every and id(equation) not in found and _hides_product(equation, naming):
            raise UserError(
                f"{every}: a convolution or dense layer lies inside the operation {equation.primitive.name!r}, where "
                "it cannot be changed; write this part of the network as a Python loop, or leave the method out"
            )
        naming.see(0, equation)
    return found


def _hides_product(equation: JaxprEqn, naming: inside.Naming) -> bool:
    """Whether an operation on values of images and kernels has a product inside."""
    inputs = [each for each in equation.invars if not isinstance(each, Literal)]
    kernels = [each for each in inputs if each in naming.owner and len(getattr(each.aval, "shape", ())) > 1]
    meet = bool(kernels) and any(each in naming.of_images for each in inputs)
    return meet and inside.hides(equation, lambda inner: inner.primitive.name in _PRODUCTS)


def in_order(product: Product) -> Product:
    """A product that prepares its kernel only once its values are there.

    On CPUs kernels are transformed (`jaxcnn.models.winograd`), which makes them up to four times as large. As that does
    not depend on images, XLA does it for all layers first and keeps them all: of VGG16, 100 MB. All other kernels are
    used as they are; to wait for values, they would have to be copied.
    """

    def run(values: Array, kernel: Array) -> Array:
        return product(values, _after(values, kernel) if _is_transformed(values, kernel) else kernel)

    layer = jax.custom_vjp(run)

    def backward(inputs: tuple[Array, Array], dy: Float[Array, "..."]) -> tuple[Array, Array]:
        values, kernel = inputs
        used = _after(dy, kernel) if _is_transformed(values, kernel) else kernel
        back = jax.vjp(lambda values: product(values, used), values)[1]
        return back(dy)[0], jnp.zeros_like(kernel)

    layer.defvjp(lambda values, kernel: (run(values, kernel), (values, kernel)), backward)
    return layer


def _is_transformed(values: Array, kernel: Array) -> bool:
    """Whether a convolution of these on a CPU transforms its kernel, if its stride is 1."""
    return values.ndim == kernel.ndim == 4 and convolution.winograd_tile(values.shape, kernel.shape, 1, 1) > 0


def _after(values: Array, kernel: Array) -> Array:
    """The kernel plus 0, which XLA does not know to be 0 until it has the first of the values."""
    zero = 0 * (values[(0,) * values.ndim] > 0).astype(kernel.dtype)
    return kernel + zero
