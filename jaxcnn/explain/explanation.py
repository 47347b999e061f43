"""What a method says about some images, before anything is drawn or scored."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a method says about some images.

    Attributes:
      method: its name.
      maps: one number for each pixel, [N, H, W]; `methods.Method.gives` says what they mean.
      values: what the method gave: the same, or one for each channel, [N, H, W, C].
      target: the explained output of each image, [N].
      layer: the layer of a class activation map or of attention; else empty.
      gap: the sum of the values minus the change of the output, [N], for methods whose values add up to it; else None.
        It is near 0 for integrated gradients with enough steps and for expected gradients with enough samples; for
        `lrp` it is minus the part that biases keep.
      change: that change, [N]: since the baseline, since the mean output of the references, or the output itself.
    """

    method: str
    maps: Float[np.ndarray, "n h w"]
    values: np.ndarray
    target: Int[np.ndarray, " n"]
    layer: str = ""
    gap: Float[np.ndarray, " n"] | None = None
    change: Float[np.ndarray, " n"] | None = None

    @property
    def relative_gap(self) -> Float[np.ndarray, " n"] | None:
        """The gap as a share of the change; NaN where the output does not change."""
        if self.gap is None or self.change is None:
            return None
        return self.gap / np.where(self.change != 0, self.change, np.nan)
