"""What the layers of a network need to know of the run, when the network does not pass it to them."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import jaxcnn.config as config
from jaxcnn.models.network import Positions


@dataclasses.dataclass(frozen=True)
class Context:
    """The surroundings of one call of a network.

    Attributes:
      norm: options of the BatchNorm layers.
      axis_name: mesh axis over which the batch is sharded, or None.
      positions: the places of the examples in the global batch; None outside of training.
    """

    norm: config.Norm
    axis_name: str | None = None
    positions: Positions | None = None


_portable: contextvars.ContextVar[bool] = contextvars.ContextVar("portable", default=False)
_explaining: contextvars.ContextVar[bool] = contextvars.ContextVar("explaining", default=False)
_current: contextvars.ContextVar[Context | None] = contextvars.ContextVar("context", default=None)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Inside, layers use one form for all platforms and batch sizes, as a file for other programs needs it.

    It has convolutions, products and windows, and none of the forms that are faster on a CPU for some shapes.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Whether the call that is being traced is inside `portable`."""
    return _portable.get()


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Inside, nothing is trained: gradients may have forms that are faster, but round otherwise than in training."""
    token = _explaining.set(True)
    try:
        yield
    finally:
        _explaining.reset(token)


def is_explaining() -> bool:
    """Whether the gradient that is being traced is inside `explaining`."""
    return _explaining.get()


def current() -> Context:
    """The context of the call that is being traced; outside of a run, that of one device and default options."""
    return _current.get() or Context(config.Norm())


@contextlib.contextmanager
def within(context: Context) -> Iterator[None]:
    """Give the layers that are called inside this context."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)
