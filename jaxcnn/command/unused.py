"""Refuses flags that are given but have no effect beside the other flags."""

from collections.abc import Iterable, Mapping, Sequence

from absl import flags

from jaxcnn.machine import given


def present() -> set[str]:
    """The names of the flags that were given."""
    return {name for name in flags.FLAGS if flags.FLAGS[name].present}


def refuse(names: Iterable[str], why: str) -> None:
    """Refuse flags of these names if they were given; `why` continues the sentence "--name ...".

    Raises:
      UserError: one was given.
    """
    given.refuse(names, present(), why)


def refuse_beside(
    choice: str,
    value: str,
    of_values: Mapping[str, Sequence[str]],
    hints: Mapping[str, str] | None = None,
    word: str = "or",
) -> None:
    """Refuse flags that have no effect with the value of another flag; arguments as of `given.refuse_beside`.

    Raises:
      UserError: one was given.
    """
    given.refuse_beside(choice, value, of_values, present(), hints, word)
