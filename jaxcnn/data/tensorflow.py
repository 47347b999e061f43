"""The only import of TensorFlow: without its log messages, and never on an accelerator."""

import contextlib
import os
from types import ModuleType

from jaxcnn.machine.extras import missing


def import_tensorflow() -> ModuleType:
    """TensorFlow with all accelerators hidden from it, so that JAX keeps all device memory.

    All code that uses TensorFlow or TensorFlow Datasets calls this first. The first call takes some seconds, later
    calls no time.

    Raises:
      MissingExtra: TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # avoids its start-up notice; TensorFlow computes nothing here
    try:
        import tensorflow
    except ModuleNotFoundError as error:
        raise missing(error, "preparing a set of TensorFlow Datasets, or the stream loader,") from None

    for kind in ("GPU", "TPU"):
        # If the caller (a notebook) has used TensorFlow before, its devices can no longer be changed.
        with contextlib.suppress(RuntimeError):
            tensorflow.config.set_visible_devices([], kind)
    return tensorflow
