"""Ranges of numbers, used as type annotations of the fields in `jaxcnn.config.fields`, and of other options.

Each number has one, so that a typing error is reported at once, instead of hanging a run or failing inside a library.
Limits that depend on the data are in `jaxcnn.train.limits`.
"""

import dataclasses
import struct
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

INT32 = 2**31 - 1  # upper limit of integers without a smaller one


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """At least `least`."""

    least: int


@dataclasses.dataclass(frozen=True)
class Above:
    """Greater than `bound`."""

    bound: int


@dataclasses.dataclass(frozen=True)
class UnitInterval:
    """At least 0, and below 1 even as a float32."""


@dataclasses.dataclass(frozen=True)
class AtMost:
    """At most this: far above useful values, and below what a library, a compiler or a machine can handle."""

    most: float


Count = Annotated[int, AtLeast(0)]
Positive = Annotated[int, Above(0)]
NonNegative = Annotated[float, AtLeast(0)]
AboveZero = Annotated[float, Above(0)]
Fraction = Annotated[float, UnitInterval()]


def of_hint(hint: Any) -> tuple[Any, ...]:
    """The ranges in an annotated type."""
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def violations(name: str, value: Any, ranges: tuple[Any, ...]) -> Iterator[str]:
    """One line for each range that the value violates, and for a number that int32 or float32 cannot represent.

    `name` is how users call it, such as "config.optim.momentum".
    """
    for each in ranges:
        if isinstance(each, AtLeast) and value < each.least:
            wanted = "not be negative" if each.least == 0 else f"be at least {each.least}"
            yield f"{name} must {wanted}, but is {value}"
        elif isinstance(each, Above) and value <= each.bound:
            yield f"{name} must be above {each.bound}, but is {value}"
        elif isinstance(each, UnitInterval) and (not 0 <= value < 1 or as_float32(value) == 1):
            yield f"{name} must be in [0, 1), but is {value}"
    most = next((each.most for each in ranges if isinstance(each, AtMost)), None)
    for number in _flat(value):
        if isinstance(number, int) and number > (INT32 if most is None else most):
            yield f"{name} must be at most {INT32 if most is None else most}, but is {number}"
        elif isinstance(number, float):
            if most is not None and number > most:
                yield f"{name} must be at most {most:g}, but is {number:g}"
            elif as_float32(number) is None:
                yield (
                    f"{name}={number:g} is outside the range of float32: 0, or an absolute value of 1.2e-38 to 3.4e38"
                )


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def as_float32(number: float) -> float | None:
    """The float32 nearest to a number; None if it is too large, or so small that arithmetic treats it as 0.

    XLA treats numbers below the smallest normal one as 0.
    """
    try:
        (nearest,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        return None
    return nearest if number == 0 or abs(nearest) >= 2.0**-126 else None
