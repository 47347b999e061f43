"""The reference of the config's fields, made from the dataclasses of `jaxcnn/config/fields.py` and their comments."""

import ast
import dataclasses
import inspect
import io
import tokenize
import typing
from collections.abc import Iterator
from typing import Any, Literal

from jaxcnn.config import fields, networks, open_names, ranges
from jaxcnn.config.open_names import Open

TRACED = "(traced)"  # begins the comments of such fields
PLACE = "<!-- the fields -->"  # they follow it in docs/config_fields.md


@dataclasses.dataclass(frozen=True)
class Field:
    """A field as the reference shows it.

    Attributes:
      key: the full name, such as "optim.learning_rate".
      kind: its type and range, in words.
      default: its default, as it is written in Python.
      meaning: its comment in the source; empty if there is none.
    """

    key: str
    kind: str
    default: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of fields, such as `config.optim`; that of the config itself has no name."""

    name: str
    meaning: str
    fields: tuple[Field, ...]


def groups() -> Iterator[Group]:
    """All groups in the order of the source."""
    yield _group("", fields.Config)
    for field in dataclasses.fields(fields.Config):
        if dataclasses.is_dataclass(field.default):
            yield _group(field.name, type(field.default))


def markdown() -> str:
    """The groups as Markdown for GitHub and Sphinx: a heading each, and a list of the fields."""
    lines = []
    for group in groups():
        title = f"config.{group.name}" if group.name else "config"
        lines += [f"## {title}", "", group.meaning, ""]
        for field in group.fields:
            meaning = field.meaning.removeprefix(TRACED).strip()
            traced = "; traced" if field.meaning.startswith(TRACED) else ""
            lines += [
                f'- <a id="{field.key}"></a>**`{field.key}`**{": " if meaning else ""}{meaning}\\',
                f"  {field.kind}; default `{field.default}`{traced}{_readers(field.key)}",
            ]
        lines.append("")
    return "\n".join(lines).rstrip()


def _readers(key: str) -> str:
    """Which of our networks read an option of `config.model`; empty if all do, and for other fields."""
    group, _, option = key.partition(".")
    if group != "model" or option in networks.OF_EVERY_NETWORK:
        return ""
    return "; for " + ", ".join(f"`{name}`" for name in open_names.families(networks.readers(option)))


def _group(name: str, kind: type) -> Group:
    hints = typing.get_type_hints(kind, include_extras=True)
    meanings = comments(inspect.getsource(kind))
    found = []
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default):
            continue
        key = f"{name}.{field.name}" if name else field.name
        default = f'"{field.default}"' if isinstance(field.default, str) else repr(field.default)
        found.append(Field(key, in_words(hints[field.name]), default, _escaped(meanings.get(field.name, ""))))
    return Group(name, _escaped(" ".join((inspect.getdoc(kind) or "").split())), tuple(found))


def comments(source: str) -> dict[str, str]:
    """The comment within each annotated assignment of a class, by the name of its field."""
    texts = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            numbers = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            found[node.target.id] = " ".join(texts[number] for number in numbers if number in texts)
    return found


def in_words(hint: Any) -> str:
    """A type with its range, such as "integer, at least 0"."""
    if typing.get_origin(hint) is typing.Annotated:
        base, *limits = typing.get_args(hint)
        named = [limit for limit in limits if isinstance(limit, Open)]
        if named:
            return _open(named[0])
        return ", ".join([in_words(base), *map(_limit, _no_wider(limits))])
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        inner = [each for each in typing.get_args(hint) if each is not Ellipsis]
        if typing.get_args(hint)[-1] is Ellipsis:
            return f"list, each: {in_words(inner[0])}"
        return f"a pair of {' and '.join(in_words(each) for each in inner)}"
    return {int: "integer", float: "number", bool: "True or False", str: "text"}[hint]


def _open(name: Open) -> str:
    own = "[a name of your own](own_code.md)"
    if name.ours:
        return "one of " + ", ".join(f"`{choice}`" for choice in (*name.chosen, *name.ours)) + f", or {own}"
    return f"{own}, or empty" if name.optional else own


def _no_wider(limits: list[Any]) -> list[Any]:
    """The limits without those that say nothing beside the others."""
    return [limit for limit in limits if not (isinstance(limit, ranges.AtMost) and limit.most >= 2**63 - 1)]


def _limit(limit: Any) -> str:
    match limit:
        case ranges.AtLeast(least):
            return f"at least {least}"
        case ranges.Above(bound):
            return f"above {bound}"
        case ranges.AtMost(most):
            return f"at most {most:,g}" if most < 10**6 else f"at most {most:,}"
        case ranges.UnitInterval():
            return "from 0 to below 1"
    raise TypeError(f"docs/field_reference.py has no words for the range {limit!r}")


def _escaped(text: str) -> str:
    """A text as Markdown: names of files such as <name> are no HTML, and `|` and `*` are themselves."""
    parts = text.split("`")
    parts[::2] = [each.replace("<", r"\<").replace("*", r"\*").replace("_", r"\_") for each in parts[::2]]
    return "`".join(parts)
