"""The table of the public functions in docs/api.md, made from their docstrings' first lines; it imports no JAX."""

import ast
import copy
import pathlib
import re
from collections.abc import Iterator

import jaxcnn

PLACE = "<!-- the functions -->"  # they follow it in docs/api.md
_FIRST = (
    "config",
    "train",
    "load",
    "ensemble",
    "summary",
    "find_rate",
    "Run",
    "Network",
    "Ensemble",
    "Step",
    "Evaluation",
    "UserError",
)
_WITH_METHODS = ("Run", "Network", "Ensemble")
_ROOT = pathlib.Path(jaxcnn.__file__).parent.parent
_Named = ast.FunctionDef | ast.ClassDef


def markdown() -> str:
    """A row for each public name, and for each method of a run and of a network."""
    return "\n".join(["| | what it does |", "|---|---|", *(f"| `{call}` | {said} |" for call, said in rows())])


def rows() -> Iterator[tuple[str, str]]:
    """Each call as it is written, and its meaning in Markdown: functions first, then classes, events and errors."""
    modules = _modules()
    last = len(_FIRST)
    for name in sorted(jaxcnn.__all__, key=lambda name: _FIRST.index(name) if name in _FIRST else last):
        (found,) = _definitions((_ROOT / modules[name].replace(".", "/")).with_suffix(".py"), name)
        yield _call(f"jaxcnn.{name}", found), _meaning(found)
        for method in _methods(found) if name in _WITH_METHODS else ():
            if isinstance(method, ast.FunctionDef) and method.name == "__call__":
                yield _call(name.lower(), method), _meaning(method)
            elif isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                yield _call(f"{name.lower()}.{method.name}", method), _meaning(method)


def returned() -> set[str]:
    """The names in the types that public functions, and the methods of public classes, return, such as "Figures"."""
    modules = _modules()
    names: set[str] = set()
    for name in jaxcnn.__all__:
        (found,) = _definitions((_ROOT / modules[name].replace(".", "/")).with_suffix(".py"), name)
        for each in (found, *_methods(found)) if isinstance(found, ast.ClassDef) else (found,):
            if isinstance(each, ast.FunctionDef) and each.returns and (each is found or not each.name.startswith("_")):
                names |= set(re.findall(r"\w+", ast.unparse(each.returns)))
    return names


def _methods(found: _Named) -> list[ast.stmt]:
    """What a class defines, and then what its bases in `jaxcnn.api` do."""
    methods = list(found.body)
    for base in found.bases if isinstance(found, ast.ClassDef) else ():
        for path in sorted((_ROOT / "jaxcnn" / "api").glob("*.py")):
            for other in _definitions(path, ast.unparse(base)):
                methods += _methods(other)
    return methods


def _modules() -> dict[str, str]:
    """The module of each public name, as `jaxcnn/__init__.py` imports them for checkers of types."""
    tree = ast.parse(pathlib.Path(jaxcnn.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names if alias.asname == alias.name}


def _definitions(path: pathlib.Path, name: str) -> list[_Named]:
    found = ast.parse(path.read_text()).body
    return [node for node in found if isinstance(node, _Named) and node.name == name]


def _call(name: str, found: _Named) -> str:
    """A function with its arguments and defaults; of classes and properties the name alone."""
    if isinstance(found, ast.ClassDef) or any("property" in ast.unparse(each) for each in found.decorator_list):
        return name
    arguments = copy.deepcopy(found.args)
    for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if each is not None:
            each.annotation = None
    return f"{name}({ast.unparse(arguments).removeprefix('self, ').removeprefix('self')})".replace("'", '"')


def _meaning(found: _Named) -> str:
    """The first line of the docstring."""
    return (ast.get_docstring(found) or "").partition("\n")[0].replace("|", r"\|")
