"""Union-find over degrees, reshaping, and the reading of a solution."""

import numpy as np

from smd_analyze.invariance import layout
from smd_analyze.invariance.constraints import Space
from smd_analyze.invariance.degrees import Degrees, Parameter
from smd_analyze.invariance.lattice import ANY, GROUND, Factor, Term, Value
from smd_analyze.invariance.reading import read, read_best


def ones(ids):
    return np.ones(ids.shape)


def tie(space, a, b, ca=1.0, cb=-1.0):
    a, b = np.asarray(a), np.asarray(b)
    space.tie(a, np.full(a.shape, ca), b, np.full(b.shape, cb))


def test_ties_carry_multipliers():
    space = Space()
    v = space.fresh((3,), owner=0)
    tie(space, v[:1], v[1:2], 1.0, -2.0)  # v0 = 2 v1
    tie(space, v[1:2], v[2:], 1.0, -3.0)  # v1 = 3 v2
    root, m = space.find(v)
    assert len(set(root.tolist())) == 1
    np.testing.assert_allclose(m / m[2], [6.0, 3.0, 1.0])


def test_contradicting_ties_ground_both():
    space = Space()
    v = space.fresh((2,), owner=0)
    tie(space, v[:1], v[1:])
    tie(space, v[:1], v[1:], 1.0, -2.0)
    assert (space.find(v)[0] == GROUND).all()


def test_variables_of_different_owners_ground_each_other():
    space = Space()
    a, b = space.fresh((2,), owner=0), space.fresh((2,), owner=1)
    tie(space, a, b)
    assert (space.find(np.concatenate([a, b]))[0] == GROUND).all()


def test_any_element_constrains_nothing():
    space = Space()
    a = space.fresh((2,), owner=0)
    mixed = Factor((0,), np.array([ANY, a[1]]), np.ones(2))
    space.zero((mixed,))
    root, _ = space.find(a)
    assert root[0] == a[0]
    assert root[1] == GROUND


def test_a_constant_part_of_another_owner_does_not_tie_the_rest():
    space = Space()
    rows, bias, other = space.fresh((4,), 0), space.fresh((4,), 0), space.fresh((), 1)
    space.zero((Factor((1,), rows, ones(rows)), Factor((1,), bias, -ones(bias)), Factor((), other, np.ones(()))))
    root, _ = space.find(rows)
    assert len(set(root.tolist())) == 4
    assert (space.find(bias)[0] == root).all()
    assert space.find(other)[0] == GROUND


def test_uniform_ties_along_the_axis_only():
    space = Space()
    ids = space.fresh((2, 3), owner=0)
    (left,) = space.uniform((Factor((0, 1), ids, ones(ids)),), {1})
    assert left.axes == (0,)
    root, _ = space.find(ids)
    assert (root == root[:, :1]).all()
    assert root[0, 0] != root[1, 0]


def matrix(space, rows, columns, owner=0):
    r, c = space.fresh((rows,), owner), space.fresh((columns,), owner)
    space.ground(c)
    return Parameter(0, (Factor((0,), r, ones(r)), Factor((1,), c, ones(c))), (rows, columns)), r


def test_reading_units_blocks_whole_and_slices():
    space = Space()
    units, _ = matrix(space, 6, 2)
    assert [(p.free, p.units) for p in read(space, [(units, 0)]).parts] == [(True, 6)]

    blocks, r = matrix(space, 6, 2)
    tie(space, np.repeat(r[::3], 3), r)
    assert [(p.start, p.stop, p.units) for p in read(space, [(blocks, 0)]).parts] == [(0, 6, 2)]

    whole, r = matrix(space, 6, 2)
    tie(space, np.repeat(r[:1], 6), r)
    assert [(p.free, p.units) for p in read(space, [(whole, 0)]).parts] == [(True, 1)]

    sliced, r = matrix(space, 6, 2)
    space.ground(r[2:4])
    assert [(p.start, p.stop, p.free) for p in read(space, [(sliced, 0)]).parts] == [
        (0, 2, True),
        (2, 4, False),
        (4, 6, True),
    ]

    none, r = matrix(space, 6, 2)
    space.ground(r)
    assert [(p.start, p.stop, p.free) for p in read_best(space, none, 0).parts] == [(0, 6, False)]


def test_interleaved_blocks_are_only_the_whole():
    space = Space()
    interleaved, r = matrix(space, 6, 2)
    tie(space, np.tile(r[:2], 3), r)
    reading = read(space, [(interleaved, 0)])
    assert [(p.start, p.stop, p.free, p.units) for p in reading.parts] == [(0, 6, True, 1)]


def test_opposite_degrees_are_no_scale_invariance():
    space = Space()
    pair, r = matrix(space, 2, 2)
    tie(space, r[:1], r[1:], 1.0, 1.0)  # one may grow only while the other shrinks
    assert not any(p.free for p in read(space, [(pair, 0)]).parts)


def value(d, shape):
    ids = d.space.fresh(shape, 0)
    return Value(shape, (Term((Factor(tuple(range(len(shape))), ids, ones(ids)),), frozenset(range(len(shape)))),)), ids


def test_layout_moves_degrees_as_numpy_moves_elements():
    d = Degrees()
    x, ids = value(d, (2, 6))
    split = layout.reshape(d, x, (2, 3, 2))
    np.testing.assert_array_equal(split.terms[0].degree[0].ids, ids.reshape(2, 3, 2))
    turned = layout.permute(split, [1, 0, 2])
    np.testing.assert_array_equal(turned.terms[0].degree[0].ids, ids.reshape(2, 3, 2).transpose(1, 0, 2))
    merged = layout.reshape(d, turned, (6, 2))
    np.testing.assert_array_equal(merged.terms[0].degree[0].ids, ids.reshape(2, 3, 2).transpose(1, 0, 2).reshape(6, 2))
    np.testing.assert_array_equal(layout.take(x, 1, [5, 0]).terms[0].degree[0].ids, ids[:, [5, 0]])


def test_concatenation_marks_zero_parts():
    d = Degrees()
    x, ids = value(d, (2,))
    zero = Value((1,), ())
    joined = layout.concatenate(d, [zero, x, zero], 0, (4,))
    np.testing.assert_array_equal(joined.terms[0].degree[0].ids, [ANY, *ids, ANY])
