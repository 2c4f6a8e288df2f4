"""Which directions of a tensor are worth a closer look: those that turned far less than chance has it.

Generous on purpose: the rule that claims a clock, and the rate, are made elsewhere, of exact values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from smd_analyze.records.clocks import Candidate
from smd_analyze.statistics.subjects import FEWEST, SAMPLE, AxisView, Subject

if TYPE_CHECKING:
    from smd_analyze.statistics.ledger import History

STRAYED = 0.01  # squared turn relative to what chance gives; class sums are at 1e-4, all but clocks above 7e-3
STRAYED_NARROW = 0.03  # the same for 16-bit floats, whose rounding turns a clock, too
TURNED = 1e-4  # 1 − cos beyond which a vector has turned, however much the others did
TURNED_NARROW = 1e-3
APART = 0.1  # squared turn relative to that of the slices beside it, which decay may have moved more than turned
NARROW = ("float16", "bfloat16")
COLLAPSED = 1e-12  # elements below this are what Adam with an L2 penalty leaves: no length to measure
LISTED = 16  # slices of one tensor, axis and behaviour
CONSTANT = 4  # the same for those that never change: they tell no more than each other
MOST = 64  # slices of one tensor and axis that are read, fewer of very many checkpoints
HELD = 8192  # checkpoints × slices of an axis that are read
STILL = 1e-6  # 1 − cos below which a slice counts although all others turned as little: a tensor that is unused
STILL_NARROW = 1e-5
SPARE = 2  # times as many are read as are listed: some turn out to be nearly dead only
KEPT = 64  # elements that are kept however little room there is


@dataclass(frozen=True)
class Claim:
    """Slices of one axis that kept their direction between the same anchors, best first, and how many there are."""

    axis: AxisView
    indices: tuple[int, ...]
    alike: int
    listed: int


@dataclass(frozen=True)
class Screened:
    """What is left of one tensor. `why_not`: why none of its directions can be a clock."""

    subject: Subject
    vv: np.ndarray
    dd: np.ndarray
    found: tuple[Candidate, ...] = ()
    claims: tuple[Claim, ...] = ()
    sums: int = 0
    slices: int = 0
    vectors: int = 0
    why_not: str = ""


def screen(history: History) -> Screened:
    """Judge a tensor whose history is complete."""
    subject, vv, dd = history.subject, history.vv, history.dd
    dd[0] = np.nan
    whole = [candidate for candidate in _whole(history) if candidate.elements >= FEWEST]
    seen = Screened(
        subject,
        vv,
        dd,
        sums=sum(candidate.kind == "sum" for candidate in whole),
        slices=sum(axis.looked_at.size for axis in subject.slices),
        vectors=sum(candidate.kind == "vector" for candidate in whole),
    )
    why_not = _why_not(vv, dd, subject.numel)
    if why_not:
        return replace(seen, why_not=why_not)
    found = tuple(candidate for candidate in whole if survives(candidate))
    claims = tuple(
        claim
        for axis, turns in zip(subject.slices, history.turns, strict=True)
        for claim in claimed(axis, turns, subject.dtype, vv.size)
    )
    return replace(seen, found=found, claims=claims)


def _why_not(vv: np.ndarray, dd: np.ndarray, numel: int) -> str:
    size, steps = vv[np.isfinite(vv)], dd[np.isfinite(dd)]
    if not steps.size:
        return "no two checkpoints in a row hold it"
    if not size.any():
        return "all zero"
    if not steps.any():
        return "frozen: never changes"
    if size.max() < numel * COLLAPSED**2:
        return f"collapsed: elements below {COLLAPSED:g}"
    return ""


def _whole(history: History) -> list[Candidate]:
    """The sums over and within units, or the vector."""
    subject, units = history.subject, history.subject.units
    axes = tuple(range(len(subject.shape)))
    whole = Candidate(
        parameter=subject.parameter,
        functional="whole",
        kind="vector",
        dtype=subject.dtype,
        shape=subject.shape,
        axes=axes,
        values=history.over,
        elements=subject.over,
        tensor_vv=history.vv,
        tensor_dd=history.dd,
        parts=1,
    )
    if units is None:
        return [whole]
    rest = tuple(axis for axis in axes if axis not in units.axes)
    words = ("sum over units", "within unit")
    if units.word != "unit":
        words = f"sum over axis {units.axes[0]}", f"within each index of axis {units.axes[0]}"
    over = replace(whole, functional=words[0], kind="sum", axes=units.axes, parts=units.count)
    within = replace(
        over, functional=words[1], axes=rest, values=history.within, elements=units.count, parts=units.elements
    )
    return [over, within]


def thinned(candidate: Candidate, numbers: int) -> Candidate:
    """With fewer elements, evenly chosen, so that its values are at most so many numbers."""
    checkpoints, count = candidate.values.shape
    left = max(KEPT, numbers // checkpoints)
    if count <= left:
        return candidate
    return replace(candidate, values=candidate.values[:, np.arange(left) * count // left])


def survives(candidate: Candidate) -> bool:
    """Did the vector keep its direction, for what chance gives, between two checkpoints in a row at least?"""
    turned, strayed = turns_of(candidate)
    return bool(_straight(turned, strayed, candidate.dtype).any())


def _straight(turned: np.ndarray, strayed: np.ndarray, dtype: str) -> np.ndarray:
    """Where a vector kept its direction, from its 1 − cos and its squared turn relative to chance."""
    narrow = dtype in NARROW
    return (strayed < (STRAYED_NARROW if narrow else STRAYED)) & (turned < (TURNED_NARROW if narrow else TURNED))


def turns_of(candidate: Candidate) -> tuple[np.ndarray, np.ndarray]:
    """1 − cos [T−1] between checkpoints in a row, and the squared turn relative to what chance gives; inf if unknown.

    Chance gives a sum of independent changes the squared length of the tensor's change, one of n equal slices the n-th
    part of it, and a vector of its own all of its change.
    """
    u, v = candidate.values[:-1], candidate.values[1:]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        uu, vv = (u * u).sum(axis=1), (v * v).sum(axis=1)
        dv = ((v - u) * v).sum(axis=1)
        across = v - u - (dv / vv)[:, None] * v
        turned = (across * across).sum(axis=1)
        kept = candidate.values.shape[1] / candidate.elements
        chance = candidate.tensor_dd[1:] * kept / (candidate.parts if candidate.kind == "slice" else 1)
        least = COLLAPSED**2 * candidate.values.shape[1]
        exists = (vv > least) & (uu > least) & (chance > 0) & np.isfinite(turned)
        return np.where(exists, turned / vv / 2, np.inf), np.where(exists, turned / chance, np.inf)


def claimed(axis: AxisView, turns: np.ndarray, dtype: str, checkpoints: int) -> list[Claim]:
    """The slices that kept their direction between some anchors, from sums [pairs, 3, slices], by when they did."""
    vv, dd, dv = turns[:, 0], turns[:, 1], turns[:, 2]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        chance = _mean(dd, np.isfinite(dd))
        across = np.maximum(dd - dv * dv / vv, 0.0)
        least = COLLAPSED**2 * min(axis.elements, SAMPLE)
        exists = (vv > least) & (vv - 2 * dv + dd > least) & (chance > 0)
        turned = np.where(exists, across / vv / 2, np.inf)
        apart = across < APART * _mean(across, exists)
        still = turned < (STILL_NARROW if dtype in NARROW else STILL)
        kept = exists & _straight(turned, across / chance, dtype) & (apart | still)
    some = np.flatnonzero(kept.any(axis=0))
    if not some.size:
        return []
    kept, turned, moved = kept[:, some], turned[:, some], (kept[:, some] & (dd[:, some] > 0)).any(axis=0)
    worst = np.where(kept, turned, 0.0).max(axis=0)
    order = _best_first(worst, np.where(kept, vv[:, some], 0.0).max(axis=0))
    patterns, which = np.unique(np.vstack([moved, kept]), axis=1, return_inverse=True)
    which = which.reshape(-1)
    found: list[Claim] = []
    left = max(CONSTANT, min(MOST, HELD // checkpoints))
    for number in np.lexsort((-np.bincount(which), -patterns[1:].sum(axis=0), ~patterns[0])):
        members = order[which[order] == number]
        listed = LISTED if patterns[0, number] else CONSTANT
        read = members[: min(left, SPARE * listed)]
        left -= read.size
        if read.size:
            found.append(Claim(axis, tuple(axis.looked_at[some[read]].tolist()), int(members.size), listed))
    return found


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Of each row [rows, 1], over the columns that count; NaN if none does."""
    return np.where(where, values, 0.0).sum(axis=1, keepdims=True) / where.sum(axis=1, keepdims=True)


def _best_first(turned: np.ndarray, size: np.ndarray) -> np.ndarray:
    """By the decade of the turn (below rounding all are alike), then by length."""
    decade = np.ceil(np.log10(np.maximum(turned, 1e-13)))
    return np.lexsort((-size, decade))


def choose(candidates: Sequence[Candidate], listed: int) -> list[Candidate]:
    """Of slices read completely, those that did keep their direction: least turned first, at most so many."""
    told = [(*turns_of(c), c) for c in candidates]
    good = [(turned[_straight(turned, strayed, c.dtype)], c) for turned, strayed, c in told]
    good = [(turned, c) for turned, c in good if turned.size]
    worst = np.array([turned.max() for turned, _ in good])
    with np.errstate(over="ignore"):
        size = np.array([np.nanmax((c.values * c.values).sum(axis=1)) for _, c in good])
    return [good[number][1] for number in _best_first(worst, size)[:listed]] if good else []
