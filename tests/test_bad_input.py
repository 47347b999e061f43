"""Wrong configs and damaged files are refused in one line: some cases of each kind; `tests.bad_input` has thousands."""

import random

import pytest

from jaxcnn.config import UserError
from tests.bad_input import mutations, outcome
from tests.bad_input.__main__ import of_configs, of_files, page


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


def test_wrong_configs_are_refused_in_a_line_for_each_mistake():
    found = list(of_configs(200, 7))
    assert [case for case in found if case[2] == outcome.DEFECT] == []
    assert sum(case[2] == outcome.REFUSED for case in found) > 150


@pytest.mark.parametrize("kind", ["images", "weights", "npz set", "Record", "Parquet"])
def test_damaged_files_are_read_or_refused_in_one_line(kind):
    found = list(of_files(40, 7, None, kind))
    assert [case for case in found if case[2] == outcome.DEFECT] == []
    assert any(case[2] == outcome.REFUSED for case in found)
    assert f"| {found[0][0]} |" in page(found, "a command")
