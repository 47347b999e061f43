"""`jaxcnn.find_rate`: a learning-rate range test."""

from typing import Any

from jaxcnn.api import arguments
from jaxcnn.api.configs import Recipe, checked
from jaxcnn.api.errors import python_words
from jaxcnn.api.training import with_data
from jaxcnn.machine import mesh, plugins
from jaxcnn.train import rate_range


def find_rate(
    config: Recipe,
    *,
    data: Any = None,
    model: Any = None,
    steps: int = 100,
    lowest: float = 1e-6,
    highest: float = 10.0,
    progress: bool = True,
) -> rate_range.RateRange:
    """Train a few steps while the learning rate grows; the result has a suggestion and shows its picture.

        found = jaxcnn.find_rate("resnet50", data="folder:photos"); found.suggestion

    No workdir is touched.

    Args:
      config, data, model: as for `jaxcnn.train`.
      steps: number of training steps, each with a larger rate.
      lowest, highest: the first and the last learning rate.
      progress: whether to say what is done.

    Raises:
      UserError: config, data or machine do not allow it.
    """
    arguments.number("steps", steps, 0)
    arguments.number("lowest", lowest, 0, whole=False)
    arguments.number("highest", highest, 0, whole=False)
    with python_words():
        wanted, arrays = with_data(checked(config), data, model)
        plugins.check(wanted)
        mesh.prepare_backend()
        found = rate_range.measure(wanted, steps, lowest, highest, print if progress else _silent)
        del arrays  # kept alive until here
        return found


def _silent(line: str) -> None:
    """Drop a line that would be printed."""
