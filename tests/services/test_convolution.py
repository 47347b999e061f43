"""The convolution of every network is that of `lax` for many shapes: those that take too long for `make test`."""

import pytest
from hypothesis import given, settings

from tests import test_convolution as few

pytestmark = pytest.mark.services

MANY = settings(deadline=None, max_examples=50)


@MANY
@given(few.geometries())
def test_convolution_and_its_gradients_are_those_of_lax_for_many_shapes(geometry):
    few.check_convolution(geometry)


@MANY
@given(*few.OF_WINOGRAD)
def test_convolution_by_winograds_forms_is_that_of_lax_for_many_shapes(geometry, tile):
    few.check_winograd_chosen(geometry, tile)


@MANY
@given(*few.OF_WINOGRAD)
def test_winograds_forms_are_those_of_lax_for_many_shapes(geometry, tile):
    few.check_winograd_forms(geometry, tile)
