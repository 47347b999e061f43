"""The one door to TensorFlow: quiet, and never on an accelerator."""

import contextlib
import os
from types import ModuleType

from jaxcnn.machine.extras import missing


def import_tensorflow() -> ModuleType:
    """TensorFlow with every accelerator hidden from it, so that JAX keeps all of the device memory.

    Everything of jaxcnn that touches TensorFlow or TensorFlow Datasets calls this first. It takes some seconds the
    first time and nothing later.

    Raises:
      MissingExtra: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no mathematics happens here; spares its start-up notice
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        raise missing(error, "preparing a set of TensorFlow Datasets, or the stream loader,") from None

    for kind in ("GPU", "TPU"):
        # A caller that used TensorFlow before us (a notebook) has settled this; it can no longer be changed.
        with contextlib.suppress(RuntimeError):
            tensorflow.config.set_visible_devices([], kind)
    return tensorflow
