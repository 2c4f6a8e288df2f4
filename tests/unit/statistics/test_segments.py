"""Rectangles of any cut, any axis, any slice hold each element once, in its own unit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_analyze.records.group import Member
from smd_analyze.statistics.segments import rectangles, view


@st.composite
def members(draw):
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    axis = draw(st.integers(0, len(shape) - 1))
    units = draw(st.integers(1, shape[axis]))
    block = draw(st.integers(1, shape[axis] // units))
    start = draw(st.integers(0, shape[axis] - units * block))
    return shape, Member("w", axis, start, start + units * block), units


@given(members(), st.data())
def test_every_element_is_found_once_in_its_unit(case, data):
    shape, member, units = case
    size = int(np.prod(shape))
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=4))})
    found = np.full(size, -1)
    seen = view(shape, member, units)
    for begin, end in zip(cuts, cuts[1:], strict=False):
        for r in rectangles(seen, begin, end):
            for row in range(r.rows):
                for unit in range(r.units):
                    at = begin + r.start + row * r.stride + unit * r.run
                    assert begin <= at
                    assert at + r.run <= end
                    assert (found[at : at + r.run] == -1).all()
                    found[at : at + r.run] = r.unit + unit
    expected = np.full(shape, -1)
    part = np.moveaxis(expected, member.axis, 0)[member.start : member.stop]
    part[:] = np.repeat(np.arange(units), len(part) // units).reshape(-1, *[1] * (part.ndim - 1))
    np.testing.assert_array_equal(found, expected.ravel())
    low, high = seen.reach
    assert (expected.ravel()[:low] == -1).all()
    assert (expected.ravel()[high:] == -1).all()


def test_a_scalar_is_one_unit():
    assert view((), Member("w", 0, 0, 1), 1).run == 1


@pytest.mark.parametrize(
    ("member", "units"),
    [(Member("w", 2, 0, 4), 1), (Member("w", 0, 0, 5), 1), (Member("w", 0, 3, 3), 1), (Member("w", 0, 0, 4), 3)],
)
def test_members_that_do_not_fit_are_errors(member, units):
    with pytest.raises(ValueError, match="w\\["):
        view((4, 6), member, units)
