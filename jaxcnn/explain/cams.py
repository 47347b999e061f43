"""Class activation maps: which positions of a layer's feature maps an output comes from.

`network` is a `jaxcnn.explain.network.Network`, `images` are normalised [n, h, w, c], `target` is the output to
explain, for each image [n], and `layer` is from `jaxcnn.explain.inside.choose`. The maps are those of the layer, not
below 0, enlarged to the size of the images, [n, h, w]; `enlarge=False` leaves them in the size of the layer.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxcnn.explain.inside import Layer
from jaxcnn.explain.network import Images, Network, Targets

Maps = Float[Array, "n h w"]
_EPSILON = 1e-6  # of Grad-CAM++, in pytorch-grad-cam too
_SPREAD = 1e-8  # of a feature map that is the same everywhere


def gradcam(network: Network, images: Images, target: Targets, *, layer: Layer, enlarge: bool = True) -> Maps:
    """Feature maps, weighted by their mean gradient: Selvaraju et al. 2017, arXiv:1610.02391."""
    features, gradient = network.at_layer(layer, images, target)
    return _finished(features * gradient.mean((1, 2), keepdims=True), images, enlarge)


def gradcam_plus_plus(network: Network, images: Images, target: Targets, *, layer: Layer, enlarge: bool = True) -> Maps:
    """Feature maps, weighted by a mean of their positive gradients: Chattopadhay et al. 2018, arXiv:1710.11063.

    The weight of a position is that of eq. 19, whose higher derivatives are powers of the first one, because the
    paper explains the exponential of the output.
    """
    features, gradient = network.at_layer(layer, images, target)
    square = gradient**2
    total = features.sum((1, 2), keepdims=True)
    share = square / (2 * square + total * square * gradient + _EPSILON)
    weight = (jnp.where(gradient != 0, share, 0) * jnp.maximum(gradient, 0)).sum((1, 2), keepdims=True)
    return _finished(features * weight, images, enlarge)


def scorecam(network: Network, images: Images, target: Targets, *, layer: Layer, enlarge: bool = True) -> Maps:
    """Feature maps, weighted by the output of the image seen through each: Wang et al. 2020, arXiv:1910.01279.

    A map is scaled to [0, 1] and multiplies the normalised pixels, so where it is 0, there is the mean colour. The
    weights are the softmax of the outputs over the maps. No gradient is used. It calls the network once for each map.
    """
    images, target = network.checked(images, target)
    features = network.maps_of(layer, images)

    def variant(numbers: Array) -> Float[Array, "m n h w c"]:
        large = enlarged(features[..., numbers], images.shape[1:3])  # few of the maps at a time
        low, high = large.min((1, 2), keepdims=True), large.max((1, 2), keepdims=True)
        masks = (large - low) / (high - low + _SPREAD)
        return images * jnp.moveaxis(masks, -1, 0)[..., None]

    scores = network.scores_of(variant, features.shape[-1], target)
    weight = jax.nn.softmax(scores, axis=0).T[:, None, None, :]
    return _finished(features * weight, images, enlarge)


def enlarged(maps: Float[Array, "n h w c"], size: tuple[int, ...]) -> Float[Array, "n H W c"]:
    """Maps in another size, by linear interpolation between the centres of positions."""
    shape = (len(maps), *size, maps.shape[-1])
    return jax.image.resize(maps, shape, "linear", antialias=False)


def _finished(weighted: Float[Array, "n h w c"], images: Images, enlarge: bool) -> Maps:
    """The sum over channels where it is positive."""
    maps = jnp.maximum(weighted.sum(-1, keepdims=True), 0)
    return (enlarged(maps, images.shape[1:3]) if enlarge else maps)[..., 0]
