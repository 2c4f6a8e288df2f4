"""Which candidates are clocks: the vectors that prove themselves, by keeping their direction while they shrink."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from smd_analyze.clocks import thresholds as at
from smd_analyze.clocks.measuring import Measured

SHOWN = 8  # slices of one tensor that are listed one by one; the others are counted


@dataclass(frozen=True)
class Claimed:
    """A clock: where it holds ([I] bool, of the measured intervals), and what it is told to be.

    `moving`: it shrinks; else it is a sum that rests. `others`: equal slices of the same tensor that are not listed.
    """

    measured: Measured
    where: np.ndarray = field(repr=False)
    moving: bool
    others: int = 0

    @property
    def name(self) -> str:
        """As the `clocks` table names it."""
        return f"{self.measured.candidate.parameter} ({self.measured.candidate.functional})"


@dataclass(frozen=True)
class Apart:
    """Slices of one tensor, or of one parameter group, that disagree in an interval: [interval, rates]."""

    parameter: str
    interval: int
    names: tuple[str, str]
    rates: tuple[float, float]


@dataclass(frozen=True)
class Judged:
    """Clocks, slices that never change, slices that disagree, and what no other tensor confirmed."""

    clocks: tuple[Claimed, ...]
    constant: tuple[Measured, ...] = ()
    odd: tuple[Apart, ...] = ()
    lone: tuple[Claimed, ...] = ()


def judge(measured: Sequence[Measured], proved: Sequence[Claimed] = ()) -> Judged:
    """The rule. A clock must hold in two consecutive intervals; where there is one, two tensors must agree in it.

    `proved`: by other means, so that no other tensor need confirm them.
    """
    usable = [m for m in measured if m.first.size]
    alone = all((m.present & ~m.same).sum() <= 1 for m in usable)  # copies do not count
    picked = [c for m in usable if (c := _claim(m, 1 if alone else 2)) is not None]
    sure = {id(c.measured.candidate) for c in proved}
    believed = _confirmed(picked, sure) if alone else picked
    believed = [c for c in believed if not c.measured.alike or _vouched(c, believed)]
    lone = [c for c in picked if not any(c is b for b in believed)]
    summed = {(c.measured.candidate.parameter, c.measured.candidate.axes) for c in believed if _is_sum(c.measured)}
    kept = [c for c in believed if _is_sum(c.measured) or _place(c.measured) not in summed]
    constant = [m for m in usable if _constant(m) and _place(m) not in summed]
    clocks, odd = _few(kept)
    return Judged(tuple(clocks), tuple(constant), tuple(odd), tuple(lone))


def _claim(m: Measured, needed: int) -> Claimed | None:
    """A stretch of intervals in which the direction is kept must hold `needed` that shrink, or that rest."""
    for moving, proof in ((True, m.moves), (False, m.rests)):
        stretch = np.cumsum(~m.holds)  # intervals with equal numbers lie in one stretch
        proofs = np.bincount(stretch[proof & m.holds], minlength=stretch[-1] + 1)
        if (proofs >= needed).any():
            return Claimed(m, m.holds, moving)
    return None


def _confirmed(picked: Sequence[Claimed], sure: Collection[int]) -> list[Claimed]:
    """Where two checkpoints are all there is: clocks that another tensor's clock confirms, or that are sure anyway."""
    return [
        a
        for a in picked
        if id(a.measured.candidate) in sure or any(_other(a, b) and _agree_anywhere(a, b) for b in picked)
    ]


def _agree_anywhere(a: Claimed, b: Claimed) -> bool:
    return any(_agree(a, b, i) for i in np.flatnonzero(a.where & b.where).tolist())


def _vouched(clock: Claimed, picked: Sequence[Claimed]) -> bool:
    """Whether a clock of unequal elements agrees with one of equal elements, whose direction proves nothing."""
    for other in picked:
        if other.measured.alike or other.moving != clock.moving:
            continue
        both = np.flatnonzero(clock.measured.moves & other.measured.moves).tolist()
        if len(both) >= min(2, clock.measured.first.size) and all(_agree(clock, other, i) for i in both):
            return True
    return False


def _agree(a: Claimed, b: Claimed, i: int) -> bool:
    if a.moving != b.moving:
        return False
    gap = abs(a.measured.rate[i] - b.measured.rate[i])
    return bool(gap <= at.APART * np.hypot(a.measured.error[i], b.measured.error[i]))


def _other(a: Claimed, b: Claimed) -> bool:
    """Whether two clocks are of different tensors, and not of one that is saved under two names."""
    x, y = a.measured.candidate, b.measured.candidate
    return x.parameter != y.parameter and not np.array_equal(x.tensor_vv, y.tensor_vv, equal_nan=True)


def _is_sum(m: Measured) -> bool:
    return m.candidate.kind == "sum"


def _place(m: Measured) -> tuple[str, tuple[int, ...]]:
    """The axis along which a slice lies: if the sum over it is a clock, its slices feel the gradient of the others."""
    return m.candidate.parameter, m.candidate.axes


def _constant(m: Measured) -> bool:
    """A slice with the same bits in two intervals or more, while its tensor moves."""
    c = m.candidate
    if c.kind != "slice" or m.moves.any() or (m.same & m.holds).sum() < 2 or c.dtype not in ("float32", "float64"):
        return False
    coarse = np.float32(c.values).view(np.uint32) & 0xFFFF  # all zero: bfloat16's numbers, saved in a wider type
    return bool(coarse.any() and not np.array_equal(np.float16(c.values), c.values, equal_nan=True))


def _few(clocks: Sequence[Claimed]) -> tuple[list[Claimed], list[Apart]]:
    """The best SHOWN slices of each tensor and axis; those that disagree with the rest are told, not averaged."""
    out: list[Claimed] = []
    odd: list[Apart] = []
    bundles: dict[tuple[str, tuple[int, ...]], list[Claimed]] = {}
    for c in clocks:
        if c.measured.candidate.kind == "slice":
            bundles.setdefault(_place(c.measured), []).append(c)
        else:
            out.append(c)
    for bundle in bundles.values():
        fits, apart = _consensus(bundle)
        odd += apart
        best = sorted(fits, key=_quality)[:SHOWN]
        keep = [c for c in fits if any(c is b for b in best)]
        more = len(fits) - len(keep) + sum(c.measured.candidate.alike for c in fits)
        out += [Claimed(c.measured, c.where, c.moving, more) for c in keep]
    return out, odd


def _consensus(bundle: Sequence[Claimed]) -> tuple[list[Claimed], list[Apart]]:
    """Slices that agree in every interval with the most precise ones' median, and those that do not."""
    if len(bundle) == 1:
        return list(bundle), []
    where = np.stack([c.where for c in bundle])
    rate = np.where(where, np.stack([c.measured.rate for c in bundle]), np.nan)
    error = np.where(where, np.stack([c.measured.error for c in bundle]), np.nan)
    middle = np.array([_weighted_median(r, e) for r, e in zip(rate.T, error.T, strict=True)])
    off = np.abs(rate - middle) > at.APART * error
    off &= np.abs(rate - middle) > at.SURE * np.abs(middle)
    fits, odd = [], []
    for c, row in zip(bundle, off, strict=True):
        if not row.any():
            fits.append(c)
            continue
        i = int(np.flatnonzero(row)[0])
        near = bundle[int(np.nanargmin(np.abs(rate[:, i] - middle[i])))]
        odd.append(
            Apart(
                c.measured.candidate.parameter,
                i,
                (c.measured.candidate.functional, near.measured.candidate.functional),
                (float(c.measured.rate[i]), float(middle[i])),
            )
        )
    return fits, odd


def _weighted_median(rate: np.ndarray, error: np.ndarray) -> float:
    known = np.isfinite(rate) & (error > 0)
    if not known.any():
        return float("nan")
    order = np.argsort(rate[known])
    weight = (error[known] ** -2)[order]
    return float(rate[known][order][np.searchsorted(np.cumsum(weight), weight.sum() / 2)])


def _quality(c: Claimed) -> float:
    return float(np.nanmedian(np.where(c.where, c.measured.error, np.nan)))
