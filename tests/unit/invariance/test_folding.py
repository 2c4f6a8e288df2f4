"""Tensors whose units, or inputs, stand in two axes: one unit per pair, and norms of these."""

import numpy as np
import pytest

from smd_analyze.invariance.folding import folded
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.records.group import Member
from smd_analyze.records.run import Checkpoint, LazyTensor, Run
from smd_analyze.statistics.segments import rectangles, view


def tensor(array: np.ndarray, layout: str | None) -> LazyTensor:
    return LazyTensor(array.shape, "float32", lambda: array.copy(), layout)


@pytest.mark.parametrize(
    ("shape", "layout", "seen", "letters"),
    [
        ((8, 2, 4), "IOO", (8, 8), "IO"), ((2, 4, 8), "IIO", (8, 8), "IO"), ((2, 4), "OO", (8,), "O"),
        ((8, 3, 2, 4), "IOOO", (8, 24), "IO"), ((1, 1, 5), "OOO", (5,), "O"),
        ((3, 3, 2, 4), "HWIO", (3, 3, 2, 4), "HWIO"),
        ((2, 4, 8), "OII", (2, 32), "OI"), ((2, 4), None, (2, 4), None), ((2, 4), "OOI", (2, 4), "OOI"),
    ],
)  # fmt: skip
def test_folded(shape, layout, seen, letters):
    found = folded(tensor(np.zeros(shape, "f4"), layout))
    assert (found.shape, found.layout) == (seen, letters)


def test_one_unit_for_each_head_and_place_in_it():
    rng = np.random.default_rng(0)
    steps = [{n: rng.normal(size=s).astype("f4") for n, s in SHAPES.items()} for _ in range(3)]
    layouts = {"attn.query.kernel": "IOO", "attn.query.bias": "OO", "attn.out.kernel": "IIO"}
    saves = [
        Checkpoint(i, f"{i}", "x", "flax", {n: tensor(a, layouts[n]) for n, a in arrays.items()})
        for i, arrays in enumerate(steps)
    ]
    run = Run("x", tuple(saves), "step", "optimizer steps")
    groups = find_groups(run)
    assert {g.name: (g.units, g.numel, g.role) for g in groups.groups} == {
        "attn.query": (6, 24, "linear"), "attn.out": (4, 24, "linear")
    }  # fmt: skip
    assert {r.parameter: r.shape for r in groups.parameters} == SHAPES
    query = steps[0]["attn.query.kernel"]
    member = groups.groups[0].members[0]
    assert member == Member("attn.query.kernel", 1, 0, 6, (4, 6))
    sums, flat = np.zeros(6), query.reshape(-1)
    for r in rectangles(view(query.shape, member, 6), 0, query.size):
        for row in range(r.rows):
            for unit in range(r.units):
                start = r.start + row * r.stride + unit * r.run
                sums[r.unit + unit] += np.square(flat[start : start + r.run]).sum()
    np.testing.assert_allclose(sums, np.square(query).sum(0).reshape(-1), rtol=1e-6)


SHAPES = {"attn.query.kernel": (4, 2, 3), "attn.query.bias": (2, 3), "attn.out.kernel": (2, 3, 4)}


def test_a_member_whose_shape_is_not_the_tensors():
    with pytest.raises(ValueError, match="cannot be seen as"):
        view((4, 5), Member("x", 1, 0, 6, (4, 6)), 6)
    assert view((4, 2, 3, 2), Member("x", 1, 0, 6, (4, 6)), 6).row == 12  # complex: pairs
