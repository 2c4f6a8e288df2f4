"""Training-like runs in which some directions feel no gradient, and every sum and slice of them by numpy."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smd_analyze.records.clocks import Candidates
from smd_analyze.records.group import Group, Member


@dataclass(frozen=True)
class Planted:
    """A tensor of the run: its units' axes, and what feels no gradient in it, as the `clocks` table calls it.

    dead: (axis, index) of slices. still: is the sum over units one? axis: the member's, of `view` if that is given.
    """

    shape: tuple[int, ...]
    units: tuple[int, ...]
    dead: tuple[tuple[int, int], ...] = ()
    still: bool = False
    axis: int = 0
    view: tuple[int, ...] = ()
    inputs: int | None = 1


TENSORS = {
    "head.weight": Planted((10, 24), (0,), still=True),
    "layers.0.weight": Planted((16, 40), (0,), dead=((0, 3), (0, 15), (1, 7), (1, 39))),
    "embedding": Planted((60, 9), (0,), dead=((0, 58), (0, 59))),
    "conv.weight": Planted((12, 5, 3, 3), (0,), dead=((2, 0), (3, 2), (1, 4)), still=True),
    "depthwise.weight": Planted((14, 1, 3, 3), (0,), dead=((0, 2),), inputs=1),
    "keras.kernel": Planted((3, 3, 6, 8), (3,), dead=((3, 5), (0, 1)), axis=3, inputs=2),
    "dense.kernel": Planted((30, 11), (1,), dead=((0, 29), (1, 0)), still=True, axis=1, inputs=0),
    "up.weight": Planted((7, 10, 2, 2), (1,), dead=((1, 9), (0, 6)), still=True, axis=1, inputs=0),
    "heads.kernel": Planted((13, 3, 8), (1, 2), dead=((0, 12),), still=True, axis=1, view=(13, 24), inputs=0),
    "position": Planted((1, 12, 16), (1,), dead=((1, 11),), still=True, inputs=None),
}
VECTORS = {"layers.0.bias": (16, True), "layers.1.bias": (30, False), "scale": (3, True)}
RATE = 2e-3  # per checkpoint


def history(count: int = 7, seed: int = 0, tensors: Mapping[str, Planted] = TENSORS) -> list[dict[str, np.ndarray]]:
    """float32 weights at each checkpoint, ten steps apart: decay acts on all, gradients on what is not planted."""
    random = np.random.default_rng(seed)
    vectors = VECTORS if tensors is TENSORS else {}
    now = {name: random.normal(size=t.shape).astype(np.float32) for name, t in tensors.items()}
    now |= {name: random.normal(size=(n,)).astype(np.float32) for name, (n, _) in vectors.items()}
    made = [now]
    for _ in range(count - 1):
        for _ in range(10):
            now = {name: w * np.float32(1 - RATE / 10) + push(name, w, tensors, random) for name, w in now.items()}
        made.append(now)
    return made


def push(name: str, w: np.ndarray, tensors: Mapping[str, Planted], random: np.random.Generator) -> np.ndarray:
    """Minus learning rate × gradient: random, but for what is planted."""
    if name in VECTORS and name not in tensors:
        return np.float32(0) if VECTORS[name][1] else (0.03 * random.normal(size=w.shape)).astype(np.float32)
    planted = tensors[name]
    noise = 0.03 * random.normal(size=w.shape)
    for axis, index in planted.dead:
        np.moveaxis(noise, axis, 0)[index] = 0
    if planted.still:  # the gradients of the units that learn add up to nothing
        live = (noise != 0).astype(float)
        noise -= live * noise.sum(planted.units, keepdims=True) / np.maximum(live.sum(planted.units, keepdims=True), 1)
    return noise.astype(np.float32)


def groups(tensors: Mapping[str, Planted] = TENSORS) -> tuple[Group, ...]:
    """Each tensor as one group with its units."""
    made = []
    for name, t in tensors.items():
        length = (t.view or t.shape)[t.axis]
        member = Member(name, t.axis, 0, length, t.view)
        made.append(
            Group(name, (member,), "invariant", "unit", length, int(np.prod(t.shape)), "", "guessed", "linear", "test")
        )
    return tuple(made)


def everything(name: str, values: Sequence[np.ndarray], t: Planted) -> Iterator[tuple[str, np.ndarray]]:
    """Every sum and slice of a tensor by its name, with its values [T, d] in float64."""
    whole = np.stack([v.astype(np.float64) for v in values])
    rest = tuple(a for a in range(len(t.shape)) if a not in t.units)
    named = t.inputs is not None
    count = len(whole)
    yield "sum over units" if named else f"sum over axis {t.units[0]}", whole.sum(shift(t.units)).reshape(count, -1)
    within = "within unit" if named else f"within each index of axis {t.units[0]}"
    yield within, whole.sum(shift(rest)).reshape(count, -1)
    units = np.moveaxis(whole, shift(t.units), range(1, 1 + len(t.units)))
    units = units.reshape(count, int(np.prod([t.shape[a] for a in t.units])), -1)
    for index in range(units.shape[1]):
        yield f"unit {index}" if named else f"index {index} of axis {t.units[0]}", units[:, index]
    for axis in rest:
        if t.shape[axis] > 1:
            for index in range(t.shape[axis]):
                word = f"input {index}" if axis == t.inputs else f"index {index} of axis {axis}"
                yield word, np.take(whole, index, axis + 1).reshape(count, -1)


def shift(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + 1 for a in axes)


def still(values: np.ndarray) -> bool:
    """Does the vector keep its direction through all checkpoints that hold it? Plainly, or plainly not."""
    values = values[np.isfinite(values).all(axis=1)]
    if values.shape[1] < 8:
        return False
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    turned = ((unit[1:] - unit[:-1]) ** 2).sum(axis=1) / 2
    assert turned.max() < 1e-5 or turned.min() > 1e-5 or turned.max() > 1e-3
    return bool(turned.max() < 1e-5)


def expected(
    values: Sequence[Mapping[str, np.ndarray]], tensors: Mapping[str, Planted] = TENSORS
) -> dict[tuple[str, str], np.ndarray]:
    """What should be found, by loading every tensor whole and trying every direction of it."""
    found = {}
    for name, planted in tensors.items():
        there = [v.get(name, np.full(planted.shape, np.nan)) for v in values]
        found |= {(name, word): s for word, s in everything(name, there, planted) if still(s)}
    for name in VECTORS if tensors is TENSORS else ():
        whole = np.stack([v.get(name, np.full(VECTORS[name][0], np.nan)) for v in values]).astype(np.float64)
        if still(whole):
            found[name, "whole"] = whole
    return found


def check(candidates: Candidates, wanted: Mapping[tuple[str, str], np.ndarray]) -> None:
    """The same directions, slices and vectors bit by bit, sums to 1e-12 of what was added up."""
    found = {(c.parameter, c.functional): c for c in candidates.found}
    assert found.keys() == wanted.keys()
    for key, candidate in found.items():
        values = wanted[key]
        if candidate.kind == "sum":
            scale = np.sqrt(np.nanmax(candidate.tensor_vv) * candidate.parts)
            np.testing.assert_allclose(candidate.values, values, rtol=1e-12, atol=1e-14 * scale, err_msg=str(key))
        else:
            np.testing.assert_array_equal(candidate.values, values, err_msg=str(key))
        assert candidate.elements == values.shape[1]
