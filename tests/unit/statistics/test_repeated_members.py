"""A member whose indices repeat along the axis: every element in its own unit, and the sums of a whole run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smd_analyze.analysis import measure
from smd_analyze.records.group import Group, Member
from smd_analyze.records.run import Checkpoint, LazyTensor, Run
from smd_analyze.statistics.segments import rectangles, views


@st.composite
def repeated(draw):
    """(shape, member, units): `times` repeats of `every` indices on one axis, of which start…stop belong to it."""
    width, before, behind = draw(st.integers(1, 4)), draw(st.integers(0, 2)), draw(st.integers(0, 2))
    times, every = draw(st.integers(1, 6)), before + width + behind
    shape = [draw(st.integers(1, 3)) for _ in range(draw(st.integers(0, 2)))]
    axis = draw(st.integers(0, len(shape)))
    shape.insert(axis, times * every)
    counts = [times * n for n in range(1, width + 1) if width % n == 0]
    units = draw(st.sampled_from(counts + [n for n in range(1, times + 1) if times % n == 0]))
    return tuple(shape), Member("w", axis, before, before + width, every=every), units


@given(repeated(), st.data())
def test_every_element_is_found_once_in_its_unit(case, data):
    shape, member, units = case
    size = int(np.prod(shape))
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=4))})
    found = np.full(size, -1)
    for begin, end in zip(cuts, cuts[1:], strict=False):
        for seen in views(shape, member, units):
            for r in rectangles(seen, begin, end):
                for row in range(r.rows):
                    for unit in range(r.units):
                        at = begin + r.start + row * r.stride + unit * r.run
                        assert (found[at : at + r.run] == -1).all()
                        found[at : at + r.run] = r.unit + unit
    expected = np.full(shape, -1)
    along = np.moveaxis(expected, member.axis, 0)
    index = np.arange(len(along))
    mine = index[(index % member.every >= member.start) & (index % member.every < member.stop)]
    along[mine] = np.repeat(np.arange(units), len(mine) // units).reshape(-1, *[1] * (along.ndim - 1))
    np.testing.assert_array_equal(found, expected.ravel())


@pytest.mark.parametrize(
    ("member", "units"),
    [
        (Member("w", 0, 0, 3, every=2), 1),
        (Member("w", 0, 0, 1, every=5), 1),
        (Member("w", 0, 0, 2, every=4), 4),
        (Member("w", 2, 0, 1, every=2), 1),
    ],
)
def test_repeats_that_do_not_fit_are_errors(member, units):
    with pytest.raises(ValueError, match="w\\["):
        views((12, 6), member, units)


@pytest.mark.parametrize("units", [1, 3, 6])
def test_norms_and_angles_of_interleaved_rows(units):
    """[3 heads × (query 2, key 2, value 2), 4]: the key rows alone, per tensor, head or row."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((18, 4)).astype(np.float32) for _ in range(3)]
    checkpoints = tuple(
        Checkpoint(i, f"{i}", "x", "plain", {"qkv": LazyTensor((18, 4), "float32", lambda w=w: w.copy())})
        for i, w in enumerate(weights)
    )
    group = Group(
        "qkv[2:4 of every 6]", (Member("qkv", 0, 2, 4, every=6),), "invariant", "block", units, 24, "", "proved",
        "linear", "",
    )  # fmt: skip
    stats = measure(Run("run", checkpoints, "name", "optimizer steps"), [group], "cpu")
    keys = [w.reshape(3, 6, 4)[:, 2:4].reshape(units, -1).astype(float) for w in weights]
    series = stats.units(group.name)
    norms = np.array([(k**2).sum(1) for k in keys])
    np.testing.assert_allclose(series.vv, norms, rtol=1e-6)
    steps = np.array([((a - b) ** 2).sum(1) for a, b in zip(keys[1:], keys, strict=False)])
    np.testing.assert_allclose(series.dd[1:], steps, rtol=1e-6)
    table = stats.table.sort("step")
    np.testing.assert_allclose(table["weight_norm"].to_numpy(), np.sqrt(norms.sum(1)), rtol=1e-6)
