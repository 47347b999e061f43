"""Facts about the run that layers need and that their network does not pass to them."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import jaxcnn.config as config
from jaxcnn.models.network import Positions


@dataclasses.dataclass(frozen=True)
class Context:
    """The run's settings during one call of a network.

    Attributes:
      norm: options of the BatchNorm layers.
      axis_name: mesh axis over which the batch is sharded, or None.
      positions: positions of the examples in the global batch; None outside of training.
    """

    norm: config.Norm
    axis_name: str | None = None
    positions: Positions | None = None


_portable: contextvars.ContextVar[bool] = contextvars.ContextVar("portable", default=False)
_explaining: contextvars.ContextVar[bool] = contextvars.ContextVar("explaining", default=False)
_current: contextvars.ContextVar[Context | None] = contextvars.ContextVar("context", default=None)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Inside this context, layers use forms that suit any platform and batch size, as exported files need.

    These are convolutions, products and windows, without the forms that are faster on a CPU for some shapes.
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
    """Inside this context nothing is trained: gradients may take faster forms that round otherwise than in training."""
    token = _explaining.set(True)
    try:
        yield
    finally:
        _explaining.reset(token)


def is_explaining() -> bool:
    """Whether the gradient that is being traced is inside `explaining`."""
    return _explaining.get()


def current() -> Context:
    """The context of the call that is being traced; outside of a run, one device and default options."""
    return _current.get() or Context(config.Norm())


@contextlib.contextmanager
def within(context: Context) -> Iterator[None]:
    """Sets the context of the layers that are called inside."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)
