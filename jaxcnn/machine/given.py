"""Refuses options that are given, as flags or as arguments, but have no effect beside the other options."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from jaxcnn.config import UserError


def refuse(names: Iterable[str], given: Collection[str], why: str) -> None:
    """Refuse options of these names if they are given; `why` continues the sentence "--name ...".

    Raises:
      UserError: one is given.
    """
    for name in names:
        if name in given:
            raise UserError(f"--{name} {why}; leave it out")


def refuse_beside(
    choice: str,
    value: str,
    of_values: Mapping[str, Sequence[str]],
    given: Collection[str],
    hints: Mapping[str, str] | None = None,
    word: str = "or",
) -> None:
    """Refuse options that have no effect with the value of another option.

    Args:
      choice: name of this other option.
      value: its value.
      of_values: the values with which an option has an effect, by its name.
      given: the names of the options that are given.
      hints: more words about an option, by its name.
      word: the word before the last of several values.

    Raises:
      UserError: one is given.
    """
    for name, values in of_values.items():
        if value not in values:
            wanted = f" {word} ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)
            refuse([name], given, f"is for --{choice}={wanted}, not {value}{(hints or {}).get(name, '')}")


def check_choices(options: Any, choices: Mapping[str, Sequence[str]]) -> None:
    """Refuse a value of an option that is none of its choices.

    Raises:
      UserError: one is not.
    """
    for name, values in choices.items():
        value = getattr(options, name)
        if value not in values:
            raise UserError(f"--{name}={value!r}: it must be one of {', '.join(values)}")


def of_python(options: Any) -> set[str]:
    """The names of the options, of a dataclass, whose value is not the default: those that a call gave."""
    usual = type(options)()
    return {name for name, value in vars(options).items() if value != getattr(usual, name)}
