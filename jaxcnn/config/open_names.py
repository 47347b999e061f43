"""Open names: a part of a run is one of ours, an entry point of an installed package, or `package.module:attribute`.

A name that is not ours may have options, in Python's notation: "optax:lion(b1=0.95)". What a name stands for is loaded
by `jaxcnn.machine.plugins`; here are only their form, and which fields have them.
"""

import ast
import dataclasses
import itertools
import operator
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import importlib.metadata

_ATTRIBUTE = re.compile(r"(\w+(?:\.\w+)*):(\w+(?:\.\w+)*)")
AGAIN = {  # the argument of `jaxcnn.load` that gives an object of a kind
    "sources": "data=function",
    "networks": "model=Net",
    "losses": "task={'loss': function}",
    "evaluations": "task={'evaluation': function}",
    "augmentations": "augment={'own': [function]}",
    "optimizers": "optim={'name': function}",
    "schedules": "schedule={'name': function}",
    "loggers": "run={'loggers': [Logger]}",
}
_ENTRY_POINT = re.compile(r"[\w.-]+")


@dataclasses.dataclass(frozen=True)
class Open:
    """Annotates a field that is an open name.

    Attributes:
      group: the entry points are those of the group "jaxcnn.<group>".
      ours: the names of our own.
      optional: whether the name may be empty.
      chosen: words in place of a name, such as "auto", for one that is found when the run starts.
    """

    group: str
    ours: tuple[str, ...] = ()
    optional: bool = False
    chosen: tuple[str, ...] = ()

    def mistake(self, value: Any) -> str:
        """Why a value is no such name, as the end of a sentence; empty if it is one."""
        choices = f"one of {', '.join(families(self.ours))}, an entry point" if self.ours else "an entry point"
        wanted = f"must be {choices} or package.module:attribute"
        if not isinstance(value, str):
            return f"{wanted}, not {value!r:.40}"
        if value in (*self.ours, *self.chosen) or (self.optional and not value):
            return ""
        name, _, _ = value.partition("(")
        try:
            parse(value)
        except ValueError as error:
            return f"is {value!r:.200}, {error}"
        if name in self.ours:
            return f"is {value!r:.200}, but {name} takes no options here; its settings are fields of the config"
        if _ATTRIBUTE.fullmatch(name) or entry_point(self.group, name) is not None:
            return ""
        return f"{wanted}, not {value!r:.40}"


def with_colon(value: str) -> str:
    """A hint for "package.attribute", if there is such a package; it is not imported."""
    module, _, attribute = value.partition("(")[0].rpartition(".")
    meant = f"{module}:{value[len(module) + 1 :]}"
    if not is_attribute(f"{module}:{attribute}"):
        return ""
    from importlib import util

    return f" (did you mean {meant!r:.60}?)" if util.find_spec(module.partition(".")[0]) else ""


def families(names: Iterable[str]) -> list[str]:
    """Names in fewer letters: neighbours that begin or end alike are one.

    Those that differ in the number or letter at their end, such as "vgg11/13/16/19"; and of these, those with the same
    first words, such as "yolo_(cnn, csp_s/m)".
    """
    split = (re.fullmatch(r"(.*?)(\d*|(?<=_)[a-z])", name) for name in names)
    pairs = [(found[1], found[2]) for found in split if found]
    groups = itertools.groupby(pairs, key=operator.itemgetter(0))
    numbered = [stem + "/".join(number for _, number in group) for stem, group in groups]
    alike = (list(group) for _, group in itertools.groupby(numbered, key=lambda name: name.partition("_")[:2]))
    return [line for group in alike for line in _with_one_beginning(group)]


def _with_one_beginning(names: list[str]) -> list[str]:
    words = zip(*(re.findall(r"[^_]*_", name) for name in names), strict=False)  # each with its "_"
    beginning = "".join(first for first, *_ in itertools.takewhile(lambda each: len(set(each)) == 1, words))
    if len(names) < 2 or not beginning:
        return names
    return [f"{beginning}({', '.join(name.removeprefix(beginning) for name in names)})"]


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options in "name" or "name(option=value, …)", whose values are Python literals.

    Raises:
      ValueError: the text has no such form.
    """
    name, bracket, rest = text.partition("(")
    if not bracket:
        return text, {}
    try:
        call = ast.parse(f"_({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not all(keyword.arg for keyword in call.keywords):
            raise ValueError("it is no call")
        return name, {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError("whose options must have the form (name=value, …) with numbers, texts or lists") from None


def entry_point(group: str, name: str) -> "importlib.metadata.EntryPoint | None":
    """The entry point "jaxcnn.<group>" of an installed package; None if there is none of this name."""
    if not _ENTRY_POINT.fullmatch(name):
        return None
    import importlib.metadata

    return next(iter(importlib.metadata.entry_points(group=f"jaxcnn.{group}", name=name)), None)


def is_attribute(name: str) -> bool:
    """Whether a name without options has the form `package.module:attribute`."""
    return _ATTRIBUTE.fullmatch(name) is not None


def of_hint(hint: Any) -> Open | None:
    """The annotation of a field that is an open name, or a tuple of them; None for other fields."""
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    return next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Open)), None)


def foreign(group: Any, prefix: str = "config.") -> Iterator[tuple[str, Open, str]]:
    """(key, kind, name) of each open name in a config, or a group of one, that is not ours."""
    for field, hint in get_type_hints(type(group), include_extras=True).items():
        value = getattr(group, field)
        if dataclasses.is_dataclass(value):
            yield from foreign(value, f"{prefix}{field}.")
        elif (kind := of_hint(hint)) is not None:
            for name in value if isinstance(value, tuple) else (value,):
                if name and name not in (*kind.ours, *kind.chosen):
                    yield f"{prefix}{field}", kind, name
