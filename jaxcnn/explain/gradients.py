"""Methods that follow the gradient of an output back to the pixels.

`network` is a `jaxcnn.explain.network.Network`, `images` are normalised [n, h, w, c], `target` is the output to
explain, for each image [n]. All return a value for each channel of each pixel, [n, h, w, c].
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcnn.config.ranges import Above, AtMost, Count, NonNegative
from jaxcnn.explain.network import Images, Network, Targets

Samples = Annotated[int, Above(0), AtMost(10**6)]
Steps = Annotated[int, Above(0), AtMost(1000)]


def gradient(network: Network, images: Images, target: Targets) -> Images:
    """The gradient: Simonyan et al. 2014, "Deep inside convolutional networks", arXiv:1312.6034, section 3."""
    return network.gradients(images, target)


def input_x_gradient(network: Network, images: Images, target: Targets) -> Images:
    """The gradient times the pixel: Shrikumar et al. 2016, arXiv:1605.01713."""
    return jnp.asarray(images) * network.gradients(images, target)


def guided_backprop(network: Network, images: Images, target: Targets) -> Images:
    """The gradient with ReLUs that pass only positive gradients: Springenberg et al. 2015, arXiv:1412.6806.

    Raises:
      UserError: the network has no ReLU.
    """
    return network.with_guided_relus().gradients(images, target)


def smoothgrad(
    network: Network,
    images: Images,
    target: Targets,
    *,
    samples: Samples = 50,
    noise: NonNegative = 0.15,
    seed: Count = 0,
) -> Images:
    """The mean gradient of images with Gaussian noise: Smilkov et al. 2017, arXiv:1706.03825.

    Args:
      network, images, target: see the module.
      samples: noisy images for each image.
      noise: standard deviation of the noise, as a share of the range of the values of the image.
      seed: seed of the noise. The noise of image i depends on i.
    """
    images, target = network.checked(images, target)
    deviation = noise * (images.max((1, 2, 3)) - images.min((1, 2, 3)))

    def variant(numbers: Array) -> Float[Array, "m n h w c"]:
        return images + deviation[:, None, None, None] * _noise(seed, numbers, images)

    return network.mean_gradient(variant, np.full(samples, 1 / samples), target)


def integrated_gradients(
    network: Network, images: Images, target: Targets, *, baseline: Any = 0.0, steps: Steps = 50
) -> Images:
    """The gradient, integrated from a baseline to the image: Sundararajan et al. 2017, arXiv:1703.01365.

    Their sum over an image is the difference of the output between image and baseline (`completeness_gap`), up to the
    error of the sum over steps.

    Args:
      network, images, target: see the module.
      baseline: an image without information, of a shape that fits [n, h, w, c]; 0 is the mean colour.
      steps: points of the Gauss-Legendre quadrature.
    """
    images, target = network.checked(images, target)
    start = jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)
    points, weights = np.polynomial.legendre.leggauss(steps)
    places = jnp.asarray((points + 1) / 2, images.dtype)

    def variant(numbers: Array) -> Float[Array, "m n h w c"]:
        return start + places[numbers][:, None, None, None, None] * (images - start)

    return (images - start) * network.mean_gradient(variant, weights / 2, target)


def expected_gradients(
    network: Network, images: Images, target: Targets, *, references: Images, samples: Samples = 100, seed: Count = 0
) -> Images:
    """Integrated gradients, averaged over baselines from the training set: Erion et al. 2021, arXiv:1906.10670.

    Every sample takes one reference and one point on the way from it to the image. The points are spread evenly over
    (0, 1), one at random in each of `samples` intervals, and the references are taken in turns.

    Args:
      network, images, target: see the module.
      references: images of the training set, normalised, [r, h, w, c].
      samples: gradients for each image.
      seed: seed of the points on the paths and of their order.
    """
    (images, target), references = network.checked(images, target), jnp.asarray(references)
    generator = np.random.Generator(np.random.PCG64(seed))
    places = (generator.permutation(samples) + generator.random(samples)) / samples
    points = jnp.asarray(places, images.dtype)[:, None, None, None, None]

    def start(numbers: Array) -> Float[Array, "m 1 h w c"]:
        return references[numbers % len(references)][:, None]

    def variant(numbers: Array) -> Float[Array, "m n h w c"]:
        return start(numbers) + points[numbers] * (images - start(numbers))

    weights = np.full(samples, 1 / samples)
    return network.mean_gradient(variant, weights, target, factor=lambda numbers: images - start(numbers))


def completeness_gap(
    network: Network, images: Images, target: Targets, values: Images, baseline: Any = 0.0
) -> Float[np.ndarray, " n"]:
    """How far the sum of each image's values is from the change of its output since the baseline."""
    return np.asarray(values.sum((1, 2, 3)) - change_since(network, images, target, baseline))


def change_since(network: Network, images: Images, target: Targets, baseline: Any = 0.0) -> Float[np.ndarray, " n"]:
    """The change of the output of each image since the baseline, to which integrated gradients add up."""
    images = jnp.asarray(images)
    start = jnp.asarray(baseline, images.dtype)
    if start.ndim == 4 and len(start) > 1:
        return np.asarray(network.scores(images, target) - network.scores(start, target))
    alone = jnp.broadcast_to(start, (1, *images.shape[1:]))
    before = network.outputs(alone)[0]  # one baseline of all
    return np.asarray(network.scores(images, target) - before[jnp.asarray(target)])


def change_since_references(
    network: Network, images: Images, target: Targets, references: Images
) -> Float[np.ndarray, " n"]:
    """The change of the output of each image since the mean of the references, to which expected gradients add up."""
    before = network.outputs(jnp.asarray(references)).mean(0)
    return np.asarray(network.scores(images, target) - before[jnp.asarray(target)])


def _noise(seed: int, numbers: Array, images: Images) -> Float[Array, "m n h w c"]:
    """Standard normal noise for each variant and image."""
    key = jax.random.key(seed)

    def one(number: Array, place: Array) -> Array:
        return jax.random.normal(
            jax.random.fold_in(jax.random.fold_in(key, place), number), images.shape[1:], images.dtype
        )

    places = jnp.arange(len(images))
    return jax.vmap(lambda number: jax.vmap(lambda place: one(number, place))(places))(numbers)
