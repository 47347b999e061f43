"""Refuses flags that are given but have no effect beside the other flags."""

from collections.abc import Iterable, Mapping, Sequence

from absl import flags

from jaxcnn.config import UserError


def refuse(names: Iterable[str], why: str) -> None:
    """Refuse flags of these names if they were given; `why` continues the sentence "--name ...".

    Raises:
      UserError: one was given.
    """
    for name in names:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} {why}; leave it out")


def refuse_beside(
    choice: str,
    value: str,
    of_values: Mapping[str, Sequence[str]],
    hints: Mapping[str, str] | None = None,
    word: str = "or",
) -> None:
    """Refuse flags that have no effect with the value of another flag.

    Args:
      choice: name of this other flag.
      value: its value.
      of_values: the values with which a flag has an effect, by its name.
      hints: more words about a flag, by its name.
      word: the word before the last of several values.

    Raises:
      UserError: one was given.
    """
    for name, values in of_values.items():
        if value not in values:
            wanted = f" {word} ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)
            refuse([name], f"is for --{choice}={wanted}, not {value}{(hints or {}).get(name, '')}")
