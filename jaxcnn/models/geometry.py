"""Checks that windows fit into images."""

import flax.linen as nn
from jaxtyping import Array, Float

import jaxcnn.config as config


def check_covers(x: Float[Array, "b h w c"], window: int, padding: int, module: nn.Module | None = None) -> None:
    """Refuse images smaller than a window; `module` is the layer to name, None for max-pool.

    Raises:
      UserError: the image is too small; the message says what to change.
    """
    height, width = x.shape[1:3]
    if min(height, width) + 2 * padding < window:
        where = "/".join(module.path) if module is not None else "max-pool"
        raise config.UserError(
            f"the images are too small for this network: only {height}x{width} pixels are left before a "
            f"{window}x{window} window ({where}); use larger images (config.data.image_size), or another "
            "config.model.name or form"
        )
