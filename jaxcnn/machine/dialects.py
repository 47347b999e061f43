"""The parts of JAX that cannot be imported again after an interrupt has ended their import."""

import contextlib
import functools
import importlib
import threading

LATE = ("builtin", "mhlo")  # dialects of MLIR that JAX imports when it first lowers a program


@functools.cache  # not if an interrupt ends the wait
def load() -> None:
    """Import these dialects in a thread of their own, where no KeyboardInterrupt is raised.

    If one ends the import of such a module, every later import of it fails ("Dialect namespace 'mhlo' is already
    registered"), and with it each compilation, until Python is started again.
    """
    thread = threading.Thread(target=_load, name="jaxcnn-dialects")
    thread.start()
    thread.join()


def _load() -> None:
    for name in LATE:
        with contextlib.suppress(ImportError):  # JAX may have renamed it
            importlib.import_module(f"jaxlib.mlir.dialects.{name}")
