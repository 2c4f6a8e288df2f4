"""Sums, contractions and normalizations over axes: they let a scale through, mix it, or divide it out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smd_analyze.invariance.degrees import FIXED, MIXED, Degrees
from smd_analyze.invariance.lattice import Term, Value, constant, moved, times, zeros
from smd_analyze.invariance.layout import rename, reshape


def _without(value: Value, axes: set[int], keep: bool, shape: Sequence[int]) -> Value:
    """The value after a reduction over `axes`, in its new shape."""
    kept = [a for a in range(value.ndim) if a not in axes]
    return rename(value, shape, {a: a if keep else kept.index(a) for a in kept})


def total(d: Degrees, value: Value, axes: Iterable[int], keep: bool, shape: Sequence[int]) -> Value:
    """Sum or mean over `axes`: each term needs one degree along them."""
    over = set(axes)
    terms = []
    for term in value.terms:
        degree, pending = d.summed(term, over, value.vary)
        terms.append(term.but(degree, term.vary - over, 0, pending))
    return _without(Value(value.shape, tuple(terms), value.nonnegative), over, keep, shape)


def size_of(
    d: Degrees, value: Value, axes: Iterable[int], keep: bool, shape: Sequence[int],
    power: float = 1, centred: bool = False, nonnegative: bool = True,
) -> Value:  # fmt: skip
    """Largest element, norm (power 1) or variance (power 2, `centred`: without what is constant) over `axes`."""
    over = set(axes)
    term = d.single(_centred(d, value, over) if centred else value)
    if term is None:
        return zeros(shape)
    d.space.cause = MIXED
    degree = times(d.space.uniform(term.degree, over), power)
    reduced = Term(degree, term.vary - over, term.taint)
    return _without(Value(value.shape, (reduced,), nonnegative), over, keep, shape)


def _centred(d: Degrees, value: Value, over: set[int]) -> Value:
    """Without the terms that are constant along `over`: a mean subtraction or softmax deletes them."""
    terms = tuple(t for t in value.terms if t.vary & over)
    for gone in value.terms:
        if not gone.vary & over:
            d.use(gone.degree)
            d.note(d.deleted, d.slots(gone.degree))
    return Value(value.shape, terms)


def centre(d: Degrees, value: Value, axes: Iterable[int]) -> Value:
    """x − mean(x): deletes what is constant, the rest needs one degree along the axes."""
    over = set(axes)
    terms = []
    for term in _centred(d, value, over).terms:
        degree, pending = d.summed(term, over, value.vary)
        terms.append(term.but(degree, None, 0, pending))
    return Value(value.shape, tuple(terms))


def normalize(d: Degrees, value: Value, axes: Iterable[int], centred: bool) -> Value:
    """x / ‖x‖ over `axes`, or with mean subtraction: one degree along them, none in the result."""
    over = set(axes)
    term = d.single(_centred(d, value, over) if centred else value)
    if term is None:
        return zeros(value.shape)
    d.space.cause = MIXED
    d.space.uniform(term.degree, over)
    d.note(d.absorbed, d.slots(term.degree))
    return Value(value.shape, (Term((), term.vary, term.taint),))


def softmax(d: Degrees, value: Value, axis: int) -> Value:
    """Deletes what is constant along the axis; the rest must keep its scale."""
    term = d.single(_centred(d, value, {axis}))
    if term is None:
        return Value(value.shape, constant().terms, True)
    d.space.cause = f"a softmax follows; {FIXED}"
    d.space.zero(term.degree)
    return Value(value.shape, (Term((), term.vary, term.taint),), True)


def contract(
    d: Degrees, x: Value, y: Value, x_labels: str, y_labels: str, labels: str, shape: Sequence[int],
    main: bool | None = None,
) -> Value:  # fmt: skip
    """Σ over the labels that `labels` lacks of x·y, as in einsum: degrees add, one degree along what is summed.

    `main`: whether x's terms are its widest ones; None finds out.
    """
    left, right = x.terms, y.terms
    if not left or not right:
        return zeros(shape)
    if len(left) * len(right) > d.most_terms + 2:
        left = d.homogeneous(x).terms
        if len(left) * len(right) > d.most_terms + 2:
            right = d.homogeneous(y).terms
    number = {label: i for i, label in enumerate(sorted(set(x_labels) | set(y_labels)))}
    place = {number[label]: i for i, label in enumerate(labels)}
    gone = {number[label] for label in number if label not in labels}
    vary_x = frozenset().union(*(t.vary for t in left))
    vary_y = frozenset().union(*(t.vary for t in right))
    terms = []
    for a in left:
        for b in right:
            degree = tuple(moved(f, (number[x_labels[i]] for i in f.axes)) for f in a.degree)
            degree += tuple(moved(f, (number[y_labels[i]] for i in f.axes)) for f in b.degree)
            widest = (a.vary >= vary_x and b.vary >= vary_y) if main is None else main
            # a shift may still be deleted: its constraint waits, which `summed` does for a term narrower than all_vary
            probe = Term(degree, frozenset())
            left_over, pending = d.summed(probe, gone, frozenset() if widest else frozenset({-1}))
            vary = {x_labels[i] for i in a.vary} | {y_labels[i] for i in b.vary}
            terms.append(
                a.but(
                    d.space.canonical(tuple(moved(f, (place[i] for i in f.axes)) for f in left_over)),
                    (labels.index(label) for label in vary if label in labels),
                    b.taint,
                    b.pending + pending,
                )
            )
    return Value(tuple(shape), d.simplified(terms))


def convolve(
    d: Degrees, x: Value, weight: Value, groups: int, shape: Sequence[int], transposed: bool, padded: bool
) -> Value:
    """Convolution of x [N, C, …] with weight [O, C/groups, …] (transposed: [C, O/groups, …]).

    One degree over the spatial axes. A shift stays spatially constant only where no zeros are padded.
    """
    d.space.cause = MIXED
    kernels = weight.terms
    if len(kernels) * len(x.terms) > d.most_terms:
        one = d.single(weight)
        kernels = (one,) if one else ()
    flat = [
        term.but(d.space.uniform(term.degree, range(2, x.ndim)), (a for a in term.vary if a < 2)) for term in x.terms
    ]
    terms: list[Term] = []
    for kernel in kernels:
        d.use(kernel.degree)
        matrix = kernel.but(d.space.uniform(kernel.degree, range(2, weight.ndim)), (a for a in kernel.vary if a < 2))
        for term, channels in zip(x.terms, flat, strict=True):
            d.use(term.degree)
            main = term.vary >= x.vary and kernel.vary >= weight.vary
            flat_x, flat_kernel = Value(x.shape[:2], (channels,)), Value(weight.shape[:2], (matrix,))
            found = _channels(d, flat_x, flat_kernel, groups, transposed, main)
            moves = padded or transposed or any(a >= 2 for a in term.vary)
            moves = set(range(2, len(shape))) if moves else set()
            terms += [t.but(None, t.vary | moves) for t in found.terms]
    return Value(tuple(shape), d.simplified(terms))


def _channels(d: Degrees, x: Value, matrix: Value, groups: int, transposed: bool, main: bool) -> Value:
    """The convolution at one place: x [N, C] with the kernel's two channel axes, group by group."""
    (batch, channels), (rows, columns) = x.shape, matrix.shape
    outputs = columns if transposed else rows // groups
    split = reshape(d, matrix, (groups, channels // groups if transposed else outputs, columns))
    grouped = reshape(d, x, (batch, groups, channels // groups))
    labels = "gio" if transposed else "goi"
    out = contract(d, grouped, split, "ngi", labels, "ngo", (batch, groups, outputs), main)
    return reshape(d, out, (batch, groups * outputs))


def affine(d: Degrees, value: Value, gain: Value | None, bias: Value | None, axis: int | None) -> Value:
    """value · gain + bias, both along `axis` (None: along the last axes, as they stand)."""

    def placed(vector: Value) -> Value:
        if axis is None:
            return vector
        shape = (1,) * axis + vector.shape + (1,) * (value.ndim - axis - 1)
        return rename(vector, shape, {0: axis})

    if gain is not None:
        value = d.multiply(value, placed(gain), value.shape)
    return value if bias is None else d.add([value, placed(bias)], value.shape)
