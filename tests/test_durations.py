"""`pytest --quick` leaves out what is known to be slow, and what was never measured."""

import json
import types

from tests import durations

REPORT = {
    "tests/test_a.py::test_long": (2.04, 1.5),
    "tests/test_a.py::test_short": (0.1, 0.1),
    "tests/test_b.py::test_short": (0.2, 0.1),
}


def item(name, **fixtures):
    """What is read of a test of pytest; `fixtures`: their scopes, by name."""
    module = durations.module_of(name)
    found = {each: [types.SimpleNamespace(scope=scope, baseid=module)] for each, scope in fixtures.items()}
    return types.SimpleNamespace(nodeid=name, _fixtureinfo=types.SimpleNamespace(name2fixturedefs=found))


def test_a_report_lists_its_longer_tests_and_the_modules_that_have_none():
    assert durations.listed(REPORT) == {"tests/test_a.py::test_long": 2.0, "tests/test_b.py": 0.0}


def test_of_a_report_of_pytest_skipped_tests_are_left_out(tmp_path):
    (tmp_path / "durations.xml").write_text(
        '<suite><testcase classname="tests.test_a" name="test_long" time="2.04"><properties>'
        '<property name="processor" value="1.5"/></properties></testcase>'
        '<testcase classname="tests.test_a" name="test_absent" time="0.01"><skipped/></testcase></suite>'
    )
    assert durations.read_report(tmp_path / "durations.xml") == {"tests/test_a.py::test_long": (2.04, 1.5)}


def test_the_tests_of_a_module_that_was_never_measured_count_as_slow(tmp_path, monkeypatch):
    monkeypatch.setattr(durations, "FILE", tmp_path / "durations.json")
    names = [*REPORT, "tests/test_b.py::test_added_since", "tests/test_new.py::test_any"]
    items = [item(name) for name in names]
    assert durations.slow_of(items) == [], "without a file, all are run"
    durations.FILE.write_text(json.dumps(durations.listed(REPORT)))
    assert [each.nodeid for each in durations.slow_of(items)] == [names[0], "tests/test_new.py::test_any"]
    shared = [item(name, made="module") for name in names]
    assert [each.nodeid for each in durations.slow_of(shared)] == [*names[:2], "tests/test_new.py::test_any"]


def test_the_file_names_no_module_that_is_gone(root):
    known = {durations.module_of(name) for name in json.loads(durations.FILE.read_text())}
    assert not [name for name in known if not (root / name).exists()]
