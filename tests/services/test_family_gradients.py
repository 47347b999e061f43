"""The gradients of every network with published weights are those of its library, in float64."""

import pytest

from tests.test_torch_parity import compare_family, draw, family_goldens

pytestmark = pytest.mark.services


@pytest.mark.parametrize("case", [case for case in draw.FAMILY_CASES if case not in draw.WITH_GRADIENTS])
def test_gradients_are_those_of_other_libraries(case):
    assert f"{case}/gradients" in family_goldens()
    compare_family(case, with_gradients=True)
