"""Wrong configs and damaged files are refused in one line: some cases of each kind; `tests.bad_input` has thousands."""

import json
import random

import pytest

from jaxcnn.config import UserError
from tests.bad_input import mutations, outcome, processes
from tests.bad_input.__main__ import of_configs, of_files, page
from tests.bad_input.page import counted, kept


def told(call, **options):
    return outcome.of(call, **options)[0]


def raises(error):
    def call():
        raise error

    return call


def test_only_one_line_of_an_error_for_users_is_a_refusal():
    assert told(lambda: None) == "accepted"
    assert told(raises(UserError("a: b; do c"))) == "refused"
    assert told(raises(UserError("a\nb"))) == "defect" and told(raises(UserError("a\nb")), lines=True) == "refused"
    assert told(raises(UserError(" "))) == told(raises(KeyError("a"))) == told(raises(MemoryError())) == "defect"


def test_what_takes_too_long_or_too_much_memory_is_a_defect(monkeypatch):
    monkeypatch.setattr(outcome, "SECONDS", 1)

    def hang():
        while True:
            pass

    assert "Hangs" in outcome.of(hang)[1]
    assert "MemoryError" in outcome.of(lambda: bytearray(2 * outcome.MEMORY))[1]


@pytest.mark.parametrize("how", mutations.HOW)
def test_a_seed_damages_a_file_in_the_same_way(how):
    content = b'{"a": 1, "b": [2, 3]}' * 30
    made = [[mutations.mutated(content, how, random.Random(k)) for k in range(8)] for _ in range(2)]
    assert made[0] == made[1] and any(each != content for each in made[0])
    assert mutations.mutated(b"", how, random.Random(0)) is not None


def test_a_changed_value_of_json_leaves_it_json():
    tree = {"a": [1, 2, {"b": "c"}], "d": None}
    made = [mutations.mutated(json.dumps(tree).encode(), "structure", random.Random(k)) for k in range(40)]
    assert sum(json.loads(each) != tree for each in made) > 30
    lines = b'{"a": 1}\n{"a": 2}\n'
    changed = [mutations.mutated(lines, "structure", random.Random(k)) for k in range(20)]
    assert all(len(each.splitlines()) == 2 for each in changed) and any(each != lines for each in changed)


def test_a_process_that_hangs_traces_or_says_nothing_is_a_defect():
    plain, traced = "jaxcnn: a: b; do c\n", "Traceback (most recent call last)\nKeyError: 1\n"
    ends = [(0, ""), (2, plain), (3, plain), (2, ""), (2, "x" * 501), (1, plain), (-6, ""), (2, traced), (None, plain)]
    found = [processes.told(code, output)[0] for code, output in ends]
    assert found == ["accepted", "refused", "refused", *["defect"] * 6]


def test_counts_are_kept_beside_the_page_and_those_of_the_same_command_replaced(tmp_path):
    file = tmp_path / "bad_input.jsonl"
    cases = [("config", "a=1", "refused", ""), ("config", "b=1", "accepted", ""), ("npz set", "c", "defect", "why")]
    for command, told in (("one", cases), ("two", cases[:1]), ("one", cases[:2])):
        records = kept(file, counted(told, command))
    text = page((), "", *records)
    assert "3 wrong configs" in text and "| config | 3 | 2 | 1 | 0 |" in text and "npz set" not in text
    assert "Made by `two`, `one`." in text


def test_cases_that_two_commands_drew_from_one_seed_are_counted_once(tmp_path):
    commands = {"--seed=1 --only=facts": 3, "--seed=1 --only=ONNX": 2, "--seed=2 --only=ONNX": 2}
    records = [counted([("facts of ONNX", "a", "refused", "")] * count, flags) for flags, count in commands.items()]
    assert "| facts of ONNX | 5 | 5 | 0 | 0 |" in page((), "", *records)
    assert "| facts of ONNX | 5 | 5 | 0 | 0 |" in page((), "", *reversed(records))


def test_wrong_configs_are_refused_in_a_line_for_each_mistake():
    found = list(of_configs(200, 7))
    assert [case for case in found if case[2] == outcome.DEFECT] == []
    assert sum(case[2] == outcome.REFUSED for case in found) > 150


@pytest.mark.parametrize(
    "kind", ["images", "weights", "npz set", "Record", "Parquet", "leave out", "votes", "outlines"]
)
def test_damaged_files_are_read_or_refused_in_one_line(kind):
    found = list(of_files(40, 7, None, kind))
    assert [case for case in found if case[2] == outcome.DEFECT] == []
    assert any(case[2] == outcome.REFUSED for case in found)
    assert f"| {found[0][0]} |" in page(found, "a command")
