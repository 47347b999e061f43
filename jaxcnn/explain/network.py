"""A network as methods of explanation see it: a function, its variables, and how many images go through it at once."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxcnn.config import UserError
from jaxcnn.explain import inside, kernels
from jaxcnn.explain.inside import Apply
from jaxcnn.machine import malloc
from jaxcnn.machine.mesh import DATA_AXIS, data_devices
from jaxcnn.models import context
from jaxcnn.text import counted

Images = Float[Any, "n h w c"]
Scores = Float[Array, " n"]
Targets = Int[Any, " n"]
Variant = Callable[[Any], Float[Array, "m n h w c"]]  # numbers [m] -> that many variants of all images
Mapping = Callable[[Float[Array, "n k"]], Float[Array, "n k"]] | None
MOST_PIXELS, MOST_ROWS = 2**18, 1024  # of a call on one device: more gains nothing on a CPU, little on a GPU
LEAST_ROWS = {"cpu": 4}  # of images so large that fewer have `MOST_PIXELS`; elsewhere 64
FINE = 3  # sizes of a call differ by at most 1 / 2**FINE, so little is computed in vain, and few programs serve
SHARE = 0.5  # of the free memory


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network and its variables. All methods call it through this class, so they share its compiled programs.

    Attributes:
      apply: `(variables, images) -> outputs [n, k]`, hashable, with layers such as BatchNorm in inference mode.
      variables: a pytree; for Flax, "params" and "batch_stats".
      rows: most images in one call. A call has this number, or a smaller one of few sizes (`size_of_call`).
      mesh: the devices among which the images of a call are divided; None: one device. `rows` is a multiple of their
        number.
      known: how many outputs there are, for each `apply` and shape of image that was met.
    """

    apply: Apply
    variables: Any
    rows: int = 64
    mesh: Mesh | None = None
    known: dict[Any, int] = dataclasses.field(default_factory=dict, repr=False)

    def checked(self, images: Images, target: Targets) -> tuple[Array, np.ndarray]:
        """Images and the output to explain for each, as arrays that suit the network.

        Raises:
          UserError: there is no image, images are no floating-point numbers [n, h, w, c], the target is not a whole
            number [n] from 0 to below the number of outputs, or the network does not return outputs [n, k].
        """
        images = as_images(images)
        wanted = np.asarray(target)
        if wanted.dtype.kind not in "iu" or wanted.shape != images.shape[:1]:
            raise UserError(
                f"target must be whole numbers [n], the output to explain of each of {counted(len(images), 'image')}, "
                f"but is {wanted.dtype} {list(wanted.shape)}"
            )
        count = self._count(images)
        wrong = wanted[(wanted < 0) | (wanted >= count)]
        if len(wrong):
            raise UserError(
                f"target has {wrong[0]}, but the network has {counted(count, 'output')}: numbers from 0 to {count - 1}"
            )
        return images, wanted

    def _count(self, images: Array) -> int:
        """The number of outputs; the network is traced for it if it was not called with such images before."""
        key = _plain(self.apply), images.shape[1:]
        if key not in self.known:
            one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
            shape = jnp.shape(jax.eval_shape(key[0], self.variables, one))
            if len(shape) != 2:
                raise UserError(
                    f"the network must return outputs [n, k], but of 1 image it returns {list(shape)}; of one output, "
                    "k is 1"
                )
            self.known[key] = shape[1]
        return self.known[key]

    def outputs(self, images: Images) -> Float[Array, "n k"]:
        """The outputs of any number of images."""
        images = as_images(images)
        made = self._by_rows(functools.partial(_outputs, self.apply, self.mesh, self.variables), images)
        if made.ndim == 2:
            self.known[_plain(self.apply), images.shape[1:]] = made.shape[1]
        return made

    def scores(self, images: Images, target: Targets, of: Mapping = None) -> Scores:
        """The output `target[i]` of each image; with `of`, that of a function of the outputs, such as softmax."""
        images, target = self.checked(images, target)
        outputs = self.outputs(images)
        outputs = outputs if of is None else of(outputs)
        return jnp.take_along_axis(outputs, jnp.asarray(target)[:, None], axis=1)[:, 0]

    def gradients(self, images: Images, target: Targets) -> Images:
        """The gradient of the output `target[i]` by the pixels of each image."""
        run = functools.partial(_gradients, self.apply, self.mesh, self.variables)
        return self._by_rows(run, *self.checked(images, target))

    def at_layer(self, layer: inside.Layer, images: Images, target: Targets) -> tuple[Array, Array]:
        """The feature maps of a layer, and the gradient of the output `target[i]` by them: [n, h, w, channels] each."""
        run = functools.partial(_at_layer, self.apply, layer, self.mesh, self.variables)
        return self._by_rows(run, *self.checked(images, target))

    def maps_of(self, layer: inside.Layer, images: Images) -> Array:
        """The feature maps of a layer, [n, h, w, channels], without a backward pass."""
        run = functools.partial(_maps_of, self.apply, layer, self.mesh, self.variables)
        return self._by_rows(run, as_images(images))

    def mean_gradient(
        self, variant: Variant, weights: Float[Any, " k"], target: Targets, factor: Variant | None = None
    ) -> Images:
        """The weighted sum of the gradients of k variants of n images, computed in parts of about `rows` images.

        With a `factor`, each gradient is multiplied by that of its number first.
        """
        copies = self.copies(len(weights), len(target))
        total: Any = 0
        for start in range(0, len(weights), copies):
            numbers = jnp.minimum(jnp.arange(start, start + copies), len(weights) - 1)
            share = jnp.zeros(copies).at[: len(weights[start:][:copies])].set(weights[start : start + copies])
            made = variant(numbers)
            rows = made.reshape(-1, *made.shape[2:])
            gradients = self.gradients(rows, np.tile(target, copies)).reshape(made.shape)
            gradients = gradients if factor is None else gradients * factor(numbers)
            total = total + jnp.tensordot(share.astype(gradients.dtype), gradients, axes=1)
        return total

    def scores_of(self, variant: Variant, count: int, target: Targets, of: Mapping = None) -> Float[Array, "count n"]:
        """The output `target[i]` of variants of n images, computed in parts of about `rows` images; `of` as above."""
        copies = self.copies(count, len(target))
        found = []
        for start in range(0, count, copies):
            made = variant(jnp.minimum(jnp.arange(start, start + copies), count - 1))
            rows = made.reshape(-1, *made.shape[2:])
            found.append(self.scores(rows, np.tile(target, copies), of).reshape(made.shape[:2]))
        return jnp.concatenate(found)[:count]

    def with_guided_relus(self) -> "Network":
        """The same network, whose ReLUs pass only positive gradients back (`inside.guided`)."""
        return dataclasses.replace(self, apply=_Guided(self.apply))

    def with_variables(self, variables: Any) -> "Network":
        """The same network with other variables."""
        return dataclasses.replace(self, variables=variables)

    def copies(self, variants: int, images: int) -> int:
        """How many variants of all images one call takes, so that all calls are about equally large."""
        most = max(1, self.rows // images)
        return -(-variants // -(-variants // most))

    def _by_rows(self, run: Callable[..., Any], *arrays: Any) -> Any:
        """`run` of arrays in equal parts of at most `rows` images; the last one is padded."""
        count, devices = len(arrays[0]), data_devices(self.mesh) if self.mesh is not None else 1
        each = -(-count // -(-count // self.rows))
        rows = min(self.rows, devices * size_of_call(-(-each // devices)))
        parts = []
        for start in range(0, count, rows):
            made = run(*(_padded(array[start : start + rows], rows) for array in arrays))
            if jax.default_backend() == "cpu":
                jax.block_until_ready(made)  # else the next call starts while this one still holds its temporaries
            if start == 0 and _is_new(run, rows, arrays):
                malloc.release()  # what compilation took, which is more than a small call
            parts.append(jax.tree.map(functools.partial(_first, min(rows, count - start)), made))
        return parts[0] if len(parts) == 1 else jax.tree.map(lambda *each: jnp.concatenate(each), *parts)


_known: set[Any] = set()


def _is_new(run: Any, rows: int, arrays: Any) -> bool:
    """Whether a function is called with such arrays for the first time in this process."""
    kind = (run.func, *run.args[:-1], rows, *(array.shape[1:] for array in arrays))
    if kind in _known:
        return False
    _known.add(kind)
    return True


def size_of_call(count: int) -> int:
    """The smallest size of a call that holds `count` images: up to 16 any, then 18, 20, … 32, 36, 40, … 64, 72, …"""
    step = 2 ** max(0, (count - 1).bit_length() - 1 - FINE)
    return -(-count // step) * step


def as_images(images: Any) -> Array:
    """Images as an array. Raises UserError if there is none, or they are no floating-point numbers [n, h, w, c]."""
    array = images if isinstance(images, jax.Array) else np.asarray(images)
    if array.ndim != 4 or not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(
            f"images must be normalised, floating-point numbers [n, h, w, c], but are {array.dtype} {list(array.shape)}"
        )
    if not len(array):
        raise UserError("there is no image to explain")
    return jnp.asarray(array)


def _padded(array: Any, rows: int) -> Any:
    lacking = rows - len(array)
    return jnp.pad(jnp.asarray(array), ((0, lacking), *[(0, 0)] * (array.ndim - 1))) if lacking else array


def _first(count: int, array: Any) -> Any:
    return array if len(array) == count else array[:count]


@dataclasses.dataclass(frozen=True)
class Ruled:
    """A network with a gradient of its own, and with the outputs of `apply`. Hashable: its programs are found again."""

    apply: Apply


def _plain(apply: Apply) -> Apply:
    return _plain(apply.apply) if isinstance(apply, Ruled) else apply


class _Guided(Ruled):
    """One whose ReLUs pass only positive gradients back."""

    def __call__(self, variables: Any, images: Any) -> Any:
        return inside.guided(self.apply)(variables, images)


def make(
    apply: Apply, variables: Any, image_shape: tuple[int, int, int], mesh: Mesh | None = None, rows: int = 0
) -> Network:
    """A network whose calls take at most half of the free memory; `rows`, if given, is the most images of a call."""
    devices = data_devices(mesh) if mesh is not None else 1
    fit = int(SHARE * _free_bytes(mesh) / inside.bytes_of_image(apply, variables, image_shape))
    shared = 1 if jax.default_backend() != "cpu" else devices  # devices of a CPU share its memory
    least = LEAST_ROWS.get(jax.default_backend(), 64)
    by_size = min(max(MOST_PIXELS // math.prod(image_shape[:2]), least), MOST_ROWS)
    most = -(-rows // devices) if rows else by_size
    return Network(apply, variables, devices * max(1, min(fit // shared, most)), mesh)


def _free_bytes(mesh: Mesh | None) -> int:
    """The free memory of a device in bytes; that of the machine if it is the device."""
    device = mesh.devices.flat[0] if mesh is not None else jax.local_devices()[0]
    told = device.memory_stats() or {}
    if "bytes_limit" in told:
        return told["bytes_limit"] - told.get("bytes_in_use", 0)
    return malloc.obtainable() or 2**31


def _over_devices(mesh: Mesh | None, run: Callable[..., Any], variables: Any, *arrays: Any) -> Any:
    if mesh is None:
        return run(variables, *arrays)
    specs = (jax.P(), *[jax.P(DATA_AXIS)] * len(arrays))
    mapped = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=jax.P(DATA_AXIS), check_vma=False)
    return mapped(variables, *arrays)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _outputs(apply: Apply, mesh: Mesh | None, variables: Any, images: Images) -> Float[Array, "n k"]:
    return _over_devices(mesh, _frugal(apply), variables, images)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradients(apply: Apply, mesh: Mesh | None, variables: Any, images: Images, target: Targets) -> Images:
    def run(variables: Any, images: Images, target: Targets) -> Images:
        with context.explaining():
            return jax.grad(lambda images: _total(_frugal(apply)(variables, images), target))(images)

    return _over_devices(mesh, run, variables, images, target)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _maps_of(apply: Apply, layer: inside.Layer, mesh: Mesh | None, variables: Any, images: Images) -> Array:
    call = _frugal(lambda variables, images: inside.tapped(apply, layer)(variables, images, None)[1])
    return _over_devices(mesh, call, variables, images).astype(images.dtype)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _at_layer(
    apply: Apply, layer: inside.Layer, mesh: Mesh | None, variables: Any, images: Images, target: Targets
) -> tuple[Array, Array]:
    call = _frugal(inside.tapped(apply, layer))

    def run(variables: Any, images: Images, target: Targets) -> tuple[Array, Array]:
        def total(change: Array) -> tuple[Array, Array]:
            outputs, maps = call(variables, images, change)
            return _total(outputs, target), maps

        zero = jnp.zeros((len(images), *layer.shape), images.dtype)
        with context.explaining():
            gradient, maps = jax.grad(total, has_aux=True)(zero)
        return maps.astype(images.dtype), gradient

    return _over_devices(mesh, run, variables, images, target)


def _frugal(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which on a CPU does not keep the transformed kernels of all layers at once."""
    return kernels.replaced(call, kernels.in_order) if jax.default_backend() == "cpu" else call


def _total(outputs: Float[Array, "n k"], target: Targets) -> Float[Array, ""]:
    """The sum of each image's target output: no image sees another, so its gradient has that of each."""
    return jnp.take_along_axis(outputs, target[:, None], axis=1).sum()
