"""Finds the objects behind open names (`jaxcnn.config.open_names`): code of users and of other packages.

A name is loaded when it is first needed. What depends on the code behind it, such as a compiled program, has `token` in
its key, which changes when the code does.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib
import inspect
import itertools
import os
import pathlib
import re
import site
import sys
import sysconfig
import threading
import traceback
import uuid
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from jaxcnn.config import Config, UserError, open_names

PACKAGE = pathlib.Path(__file__).parent.parent
OWN_CODE = "JAXCNN_OWN_CODE"  # environment variable; with "off" no name that is not ours is loaded
# Packages whose objects are no part of a run, but could do anything: those of Python itself, and installers.
_REFUSED = sys.stdlib_module_names | {"pip", "setuptools", "pkg_resources", "_distutils_hack"}
GIVEN = "given"  # used in place of a module, for objects from Python that no name leads to
ELSEWHERE = ".elsewhere"  # ends the names of objects of other sessions, which this one has to be given again
_LOADING = threading.RLock()

_given: dict[str, Any] = {}  # the objects given from Python, each with a name of its own
_tokens: list[tuple[Any, str]] = []  # objects without a source file, each with its token


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The object behind an open name.

    Attributes:
      name: the name, with its options.
      target: the object that it leads to.
      options: the options in the name.
      module: the module file from which it was loaded; empty if it exists only in this process.
    """

    name: str
    target: Any
    options: Mapping[str, Any]
    module: str

    @property
    def takes(self) -> tuple[str, ...] | None:
        """The names of the arguments that the object takes when called; None if it takes any, or if unknown."""
        parameters = _parameters(self.target)
        if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            return None
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return tuple(name for name, each in parameters.items() if each.kind in named) or None

    @property
    def function(self) -> Callable[..., Any]:
        """The object with its options bound."""
        self._check_options()
        return functools.partial(self.target, **self.options) if self.options else self.target

    def with_those(self, offered: Mapping[str, Any]) -> Callable[..., Any]:
        """The object with its options bound, and with those arguments in `offered` that it takes and they lack."""
        self._check_options()
        parameters = _parameters(self.target)
        own = {name: value for name, value in offered.items() if name in parameters}
        return functools.partial(self.target, **(own | dict(self.options)))

    def _check_options(self) -> None:
        if self.takes is not None and (unknown := [name for name in self.options if name not in self.takes]):
            near = difflib.get_close_matches(unknown[0], self.takes, n=1)
            meant = f" (did you mean {near[0]!r}?)" if near else f"; it takes {', '.join(self.takes)}"
            raise UserError(f"{self.name!r}: {_label(self.target)} has no option {unknown[0]!r}{meant}")


def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        if not isinstance(target, type):
            return inspect.signature(target).parameters
        made_by: Any = target.__init__  # type: ignore[misc]  # a signature of the class may be that of a metaclass
        _, *others = inspect.signature(made_by).parameters.items()
        return dict(others)
    except (TypeError, ValueError):  # some functions written in C have no signature
        return {}


def load(kind: str, name: str) -> Loaded:
    """The object that an open name leads to.

    Args:
      kind: the group of its entry points, such as "networks".
      name: a name that is not ours.

    Raises:
      UserError: the name leads to nothing, or its module fails, or it is part of Python, or `OWN_CODE` is off.
    """
    target, options = open_names.parse(name)
    with _LOADING:
        if target in _given:
            return Loaded(name, _given[target], options, "")
        if target.startswith(f"{GIVEN}:"):
            raise UserError(
                f"{name.replace(ELSEWHERE, '')!r} was an object of the Python session that started this run; pass it "
                f"again, as in jaxcnn.load(workdir, {open_names.AGAIN[kind]}), or put it "
                "into a module and name it as package.module:attribute"
            )
        if (wanted := os.environ.get(OWN_CODE, "on")) != "on":
            raise UserError(
                f"{name!r} is code that is not part of jaxcnn, and {OWN_CODE}={wanted} refuses to run it; if you trust "
                f"it, and the folder that names it, unset {OWN_CODE}"
            )
        if not open_names.is_attribute(target):
            point = open_names.entry_point(kind, target)
            if point is None:
                raise UserError(f"{name!r}: no installed package has an entry point of this name for {kind}")
            target = point.value
        module = target.partition(":")[0]
        found = _attribute(name, target)
        return Loaded(name, found, options, module if _file_of(sys.modules[module]) else "")


def check(config: Config) -> None:
    """Load every open name of a config.

    Raises:
      UserError: a name leads to nothing; the message has its key.
    """
    for key, kind, name in open_names.foreign(config):
        try:
            loaded = load(kind.group, name)
            if callable(loaded.target):
                _ = loaded.function
        except UserError as error:
            raise UserError(f"{key}={error}") from None


def name_of(given: Any) -> str:
    """The open name of an object, by which this process finds it; other processes too if it is in a module file.

    No other object gets this name, and the same object gets it again.
    A `functools.partial` with options that are literals is the name of its function with them.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, functools.partial) and not given.args:
        options = ", ".join(f"{name}={value!r}" for name, value in given.keywords.items())
        name = f"{name_of(given.func)}({options})"
        try:
            if "(" not in name_of(given.func) and open_names.parse(name)[1] == given.keywords:
                return name
        except ValueError:
            pass
    name = f"{getattr(given, '__module__', None)}:{getattr(given, '__qualname__', None)}"
    if open_names.is_attribute(name):
        try:
            # A notebook may define the same name again; a config made before keeps its object.
            if _attribute(name, name) is given and (not is_of_a_session(name) or _is_named(name, given)):
                return name
        except UserError:
            pass
    names = (f"{GIVEN}:{_label(given)}{f'.{number}' if number > 1 else ''}" for number in itertools.count(1))
    return next(name for name in names if _is_named(name, given))


def _is_named(name: str, given: Any) -> bool:
    """Whether an object has this name; a free name becomes its name."""
    with _LOADING:
        known = _given.setdefault(name, given)
        return known is given or (inspect.ismethod(given) and known == given)


def is_of_a_session(name: str) -> bool:
    """Whether an open name leads to an object of a Python session, which is in no module file."""
    return name.partition(":")[0] in (GIVEN, "__main__")


def without_number(name: Any) -> Any:
    """An open name as all sessions write it: the numbers of `name_of` depend on the other objects of a session.

    Values that are no such name stay as they are; a list is taken element by element.
    """
    if isinstance(name, list | tuple):
        return [without_number(each) for each in name]
    if not isinstance(name, str) or not is_of_a_session(name):
        return name
    target, bracket, options = name.partition("(")
    home, _, label = target.partition(":")
    label = label.rpartition(".")[2] if home == "__main__" else label.partition(".")[0]
    return f"{GIVEN}:{label}{bracket}{options}"


def needs(config: Config) -> list[tuple[str, str]]:
    """(key, open name) of the parts that only this process can resolve, because they are in no module file."""
    found = [(key.removeprefix("config."), name) for key, _, name in open_names.foreign(config)]
    found.append(("data.source", config.data.source))
    return [(key, name) for key, name in found if is_of_a_session(name)]


def told(config: Config) -> list[str]:
    """A line for each of `needs`, which says how another Python session continues or loads the run."""
    return [
        f"{without_number(name) if name.startswith(GIVEN) else name} is in no module of a file: other Python sessions "
        f"must give it again, to jaxcnn.config as {key.partition('.')[0]}={{{key.partition('.')[2]!r}: …}}, and to "
        "jaxcnn.load if predictions need it"
        for key, name in needs(config)
    ]


def token(config: Any) -> str:
    """A text that changes when the code behind the open names of a config changes; empty if all names are ours.

    Args:
      config: a config, or a group of one.
    """
    loaded = [load(kind.group, name) for _, kind, name in open_names.foreign(config)]
    found = [(each.name, _sources(each.module) if each.module else _of_identity(each.target)) for each in loaded]
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest() if found else ""


def _attribute(name: str, path: str) -> Any:
    """The attribute of a module, from "package.module:attribute"."""
    module_name, _, attributes = path.partition(":")
    _refuse(name, module_name)
    found: Any = _module(name, module_name)
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            near = difflib.get_close_matches(attribute, dir(found), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            where = f"; {module_name} is {found.__file__}" if getattr(found, "__file__", None) else ""
            again = "; define it again in this session, or pass it as model=" if module_name == "__main__" else ""
            raise UserError(f"{name!r}: {module_name} has no {attribute!r}{hint}{where}{again}")
        found = getattr(found, attribute)
        _refuse(name, _home(found))
    return found


def _home(found: Any) -> str:
    """The module where a module, class or function is from; empty for other objects."""
    while isinstance(found, functools.partial):
        found = found.func
    if isinstance(found, ModuleType):
        return found.__name__
    return str(found.__module__) if inspect.isclass(found) or inspect.isroutine(found) else ""


def _refuse(name: str, module_name: str) -> None:
    """Refuse what is part of Python, such as "subprocess:run": a config may come from others.

    Raises:
      UserError: the module is one of those.
    """
    if (top := module_name.partition(".")[0]) in _REFUSED:
        raise UserError(
            f"{name!r} leads to {top!r}, a module of Python, and no part of a run is there; name code of your own, in "
            "a module of another name"
        )


def _module(name: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UserError(
                f"{name!r}: there is no module {error.name!r} in {pathlib.Path.cwd()} or among the installed packages; "
                "start where it is, or name its folder in $PYTHONPATH"
            ) from None
        raise UserError(f"{name!r}: {_place(error)}{type(error).__name__}: {error}") from error
    except Exception as error:  # code of others may raise anything
        raise UserError(f"{name!r}: {_place(error)}{type(error).__name__}: {error}") from error


def _place(error: BaseException) -> str:
    """The file and line where a module failed."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}: line {error.lineno}: "
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f"{frames[-1].filename}: line {frames[-1].lineno}: " if len(frames) > 1 else ""


def _label(target: Any) -> str:
    """A name for an object, which is a valid identifier."""
    name = getattr(target, "__name__", None) or type(target).__name__
    return re.sub(r"\W", "", name) or "object"


def _of_identity(target: Any) -> str:
    """A text for this object of this process, which no other object gets."""
    for known, text in _tokens:
        if known is target:
            return text
    _tokens.append((target, uuid.uuid4().hex))
    return _tokens[-1][1]


@functools.cache
def _sources(module_name: str) -> str:
    """A digest of the sources of a module and of those it may use: its package and folder, other code of the user."""
    top = sys.modules[module_name.partition(".")[0]]
    folders = [pathlib.Path(each) for each in getattr(top, "__path__", ())]
    files = {file for folder in folders for file in folder.rglob("*.py")}
    if not folders:
        files |= set(pathlib.Path(str(top.__file__)).parent.glob("*.py"))
    files |= {file for file in map(_file_of, list(sys.modules.values())) if file and not _installed(file)}
    digest = hashlib.sha256()
    for file in sorted(files):
        try:
            digest.update(str(file).encode() + b"\0" + file.read_bytes())
        except OSError:  # a file of a notebook or an editor that no longer exists
            continue
    return digest.hexdigest()


def _file_of(module: ModuleType) -> pathlib.Path | None:
    """The source file of an imported module; None if it has none, or is the script that runs."""
    if module.__name__ == "__main__":
        return None
    file = getattr(module, "__file__", None)
    return pathlib.Path(file) if isinstance(file, str) and file.endswith(".py") else None


def _installed(file: pathlib.Path) -> bool:
    """Whether a file belongs to Python, to an installed package or to jaxcnn."""
    return any(file.is_relative_to(place) for place in _places())


@functools.cache
def _places() -> tuple[pathlib.Path, ...]:
    known = {*sysconfig.get_paths().values(), *site.getsitepackages(), site.getusersitepackages(), str(PACKAGE)}
    return tuple(pathlib.Path(place) for place in known if place != sys.prefix)
