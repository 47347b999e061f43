"""The structure of the package: rooms import only those above them in CONTRIBUTING's table, and no modules a circle."""

import ast
import graphlib
import re

MOST_LINES = 350
TOO_SHORT = re.compile(r'\s*r?"""(\S+(?: \S+)?)"""')  # a whole docstring of one or two words
FRAGMENT = re.compile(r'^ *(?:r?"""(?:Of|For) |[\w*]+(?:, [\w*]+)*: (?:[Oo]f|[Ff]or) ).*', re.MULTILINE)  # without noun


def modules(root):
    """The dotted names of all modules, with their paths."""
    paths = {path.relative_to(root).with_suffix(""): path for path in (root / "jaxcnn").rglob("*.py")}
    return {".".join(name.parts).removesuffix(".__init__"): path for name, path in paths.items()}


def imports(name, path, known):
    """The modules of jaxcnn that one imports anywhere in its file, also for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & known) | ({node.module} if names - known else set())
    return (found & known) - {name}


def room(name, paths):
    """The room of a module; None for those beside the rooms and for commands (`__main__`), which may import any."""
    parts = name.split(".")
    inside = len(parts) > 2 or paths[name].name == "__init__.py"
    return parts[1] if len(parts) > 1 and inside and parts[-1] != "__main__" else None


def test_a_room_imports_only_rooms_above_it_and_no_modules_import_each_other_in_a_circle(root):
    paths = modules(root)
    graph = {name: imports(name, path, set(paths)) for name, path in paths.items()}
    table = re.findall(r"^\| (`jaxcnn/.*?) \|", (root / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    rooms = [name for row in table for name in re.findall(r"`jaxcnn/(\w+)/`", row)]
    assert set(rooms) == {room(name, paths) for name in paths} - {None}
    upward = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if (here := room(name, paths)) and (there := room(other, paths)) and rooms.index(there) > rooms.index(here)
    ]
    assert upward == []
    del graph["jaxcnn"]  # `import jaxcnn` imports the rest only when it is used
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def test_modules_are_short_and_there_is_no_drawer_for_odds_and_ends(root):
    folders = ("jaxcnn", "benchmarks", "configs", "docs", "examples")
    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    assert [path for path in files if len(path.read_text().splitlines()) >= MOST_LINES] == []
    assert [path for path in files if path.stem in ("utils", "util", "helpers", "misc")] == []


def test_a_docstring_says_more_than_two_words(root):
    files = [path for folder in ("jaxcnn", "benchmarks") for path in (root / folder).rglob("*.py")]
    lines = ((path.name, TOO_SHORT.fullmatch(line)) for path in files for line in path.read_text().splitlines())
    short = {f"{name}: {found[1]}" for name, found in lines if found}
    assert not short, "say what it returns or does, in a sentence"


def test_a_docstring_and_its_entries_begin_with_what_they_describe(root):
    assert FRAGMENT.search('    """Of the grids."""') and FRAGMENT.search("      name, shape: of the input.\n")
    assert not FRAGMENT.search("      seed: seed of the images.\n      of: for")
    files = [path for folder in ("jaxcnn", "benchmarks", "docs") for path in (root / folder).rglob("*.py")]
    found = {f"{path.name}: {each.strip()}" for path in files for each in FRAGMENT.findall(path.read_text())}
    assert not found, 'begin with a noun: "seed: seed of the images", not "seed: of the images"'


def test_only_the_tasks_the_reports_and_the_commands_know_the_figures_of_classification(root):
    paths = modules(root)
    rooms = {name: room(name, paths) for name, path in paths.items() if "top1" in path.read_text()}
    assert "jaxcnn.tasks.classification" in rooms, "the word has changed"
    assert [name for name, here in rooms.items() if here not in (None, "tasks", "reporting", "api", "command")] == []
