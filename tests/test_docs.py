"""The pages: every field of a config is described, and links within the clone lead somewhere."""

import ast
import dataclasses
import re
import tomllib

import pytest

import jaxcnn
import jaxcnn.config as configs
from docs import api_table, field_reference, links, made
from jaxcnn.config import fields, fields_of_networks, networks, open_names
from tests import runs

PAGES = sorted(
    [
        *runs.ROOT.glob("docs/*.md"),
        *(runs.ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    ]
)
WORDS_OF_THREE_PAGES = 1100
CONFIG = re.compile(r"--config=([a-z0-9_/]+(?:\.py)?(?::[a-z]+)?)")


def test_every_field_is_in_the_reference_with_a_meaning():
    found = {field.key: field for group in field_reference.groups() for field in group.fields}
    assert set(found) == set(configs.flatten(configs.to_dict(fields.Config())))
    said = {key: field.meaning.removeprefix(field_reference.TRACED).split() for key, field in found.items()}
    assert [key for key, words in said.items() if len(words) < 2 or words == ["the", "same"]] == []
    optimizers = {"sgd", "adam", "adamw", "lars", "lamb", "muon", "and"}
    assert [key for key, words in said.items() if {word.strip(",") for word in words} <= optimizers] == []


def test_the_reference_has_ranges_choices_and_defaults():
    found = {field.key: field for group in field_reference.groups() for field in group.fields}
    assert found["optim.momentum"].kind == "number, from 0 to below 1" and found["optim.momentum"].default == "0.9"
    assert found["model.width"].kind == "number, above 0, at most 1,024"
    assert found["data.resize"].kind == "one of `crop`, `pad`, `stretch`"
    assert found["hosts.process"].kind == "integer, at least -1"
    assert found["data.source"].default == '"tfds:cifar10"'
    assert field_reference.PLACE in (runs.ROOT / "docs" / "config_fields.md").read_text()


def test_a_comment_belongs_to_the_field_on_whose_lines_it_stands():
    source = "class A:\n    a: int = 0  # first\n    b: int = (\n        1  # second\n    )\n    c: int = 2\n"
    assert field_reference.comments(source) == {"a": "first", "b": "second", "c": ""}


def test_a_range_without_words_is_refused():
    with pytest.raises(TypeError, match="no words for the range"):
        field_reference.in_words(fields.Annotated[int, dataclasses.Field])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_of_the_clone(page):
    assert list(links.broken_in_markdown(page)) == []


@pytest.mark.parametrize("room", ["jaxcnn", "configs", "docs", "benchmarks"])
def test_files_that_the_code_names_exist(room):
    name = re.compile(r"(?<![\w/.<-])((?:jaxcnn|docs|benchmarks|notebooks)/[\w/]+\.(?:py|md|toml|npz|ipynb))\b")
    named = {(path, file) for path in runs.ROOT.glob(f"{room}/**/*.py") for file in name.findall(path.read_text())}
    assert named and [str(each) for each in named if not (runs.ROOT / each[1]).is_file()] == []


def test_broken_links_are_told(tmp_path):
    (tmp_path / "a.html").write_text('<p id="there"><a href="b.html">b</a><a href="#gone">c</a><a href="#there">d</a>')
    assert list(links.broken(tmp_path)) == [
        "a.html: #gone: the page has no such part",
        "a.html: b.html: there is no such file",
    ]
    (tmp_path / "a.md").write_text(
        "[x](gone.md) [y](http://host.org/) [z](https://github.com/jaxcnn/jaxcnn/blob/main/z)"
    )
    assert len(list(links.broken_in_markdown(tmp_path / "a.md"))) == 3
    (tmp_path / "b.md").write_text('# A `b`, c\n<a id="d.e"></a> [x](#a-b-c) [y](#d.e) [z](b.md#gone)')
    assert list(links.broken_in_markdown(tmp_path / "b.md")) == ["b.md: b.md#gone: the page has no such part"]


@pytest.mark.parametrize("page", made.PARTS)
def test_what_is_made_from_the_code_stands_in_the_pages(page):
    assert (runs.ROOT / "docs" / page).read_text() == made.remade(page), "python -m docs.made writes it anew"


def test_the_table_of_calls_has_every_public_name_and_its_meaning():
    said = dict(api_table.rows())
    assert {call.partition("(")[0] for call in said} >= {f"jaxcnn.{name}" for name in jaxcnn.__all__}
    assert said['run.records(kind="")'].startswith("The records of `metrics.jsonl`") and "run.network" in said
    assert [call for call, meaning in said.items() if not meaning] == []


def test_every_public_name_and_every_class_that_is_returned_has_a_section_of_the_reference():
    text = (runs.ROOT / "docs" / "api.md").read_text()
    documented = re.findall(r"^\.\. auto(?:function|class|exception):: (jaxcnn\.[\w.]+)", text, re.MULTILINE)
    ours = {
        name
        for path in runs.ROOT.glob("jaxcnn/**/*.py")
        for name in re.findall(r"^class (\w+)", path.read_text(), re.M)
    }
    needed = set(jaxcnn.__all__) | (api_table.returned() & ours)
    assert needed >= {"Sweep", "Health", "Records", "Figures", "Picture", "Predictions", "Explanations", "Compressed"}
    assert needed - {place.rpartition(".")[2] for place in documented} == set()
    for place in documented:  # they exist, with a docstring
        module, _, name = place.rpartition(".")
        (found,) = api_table._definitions((runs.ROOT / module.replace(".", "/")).with_suffix(".py"), name)
        assert ast.get_docstring(found), place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_name_configs_that_exist(page):
    for name in CONFIG.findall(page.read_text()):
        file = name.partition(":")[0].removeprefix("configs/").removesuffix(".py")
        assert (runs.ROOT / "configs" / f"{file}.py").is_file(), name


def test_the_readme_is_one_screen_with_its_test_command():
    text = (runs.ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 68 and max(map(len, text.splitlines())) <= 132
    assert CONFIG.search(text) and "`make test`" in text


def test_the_architecture_fits_on_three_printed_pages_and_names_every_task():
    text = (runs.ROOT / "docs" / "architecture.md").read_text()
    assert len(text.split()) <= WORDS_OF_THREE_PAGES
    rooms = {path.parent.name for path in (runs.ROOT / "jaxcnn").glob("*/__init__.py")}
    assert rooms == set(re.findall(r"`(\w+)/`", re.search(r"^## Rooms$.*?^## ", text, re.M | re.S)[0]))
    assert len(re.findall(r"^\d+\. \*\*", text.partition("## Rooms")[0], re.M)) == 10


def test_every_module_is_listed_in_its_room():
    text = (runs.ROOT / "docs" / "rooms.md").read_text()
    listed = dict(re.findall(r"^\*\*`(\w+)/`\*\*:(.*?)\n\n", text, re.M | re.S))
    rooms = {path.parent for path in (runs.ROOT / "jaxcnn").glob("*/__init__.py")}
    modules = {f"{room.name}/{path.stem}" for room in rooms for path in room.rglob("[!_]*.py")}
    named = {f"{room}/{name}" for room, said in listed.items() for name in re.findall(r"`(\w+)`", said)}
    assert sorted(modules ^ named) == [], "docs/rooms.md lists every module, and no other"
    commands = {path.stem for path in (runs.ROOT / "jaxcnn").glob("*.py")} - {"__init__"}
    assert commands <= set(re.findall(r"`(?:jaxcnn/)?(\w+)(?:\.py)?`", text))


def test_every_extra_is_in_the_table_of_the_installation():
    extras = tomllib.loads((runs.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`\[.*?) \|", (runs.ROOT / "docs" / "install.md").read_text(), re.M)
    assert set(extras) == {name for row in rows for name in re.findall(r"`\[([\w-]+)\]`", row)}


def test_the_page_of_python_names_every_network_that_is_a_recipe():
    others = {*networks.DETECTORS, *networks.SEGMENTERS, *networks.INSTANCES}
    names = open_names.families(name for name in fields_of_networks.NETWORKS if name not in others)
    text = (runs.ROOT / "docs" / "python.md").read_text()
    assert [name for name in names if f"`{name}`" not in text] == []
