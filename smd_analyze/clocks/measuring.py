"""One candidate, interval by interval: how much it shrank, how much it turned, and what chance would have done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smd_analyze.clocks import thresholds as at
from smd_analyze.records.clocks import Candidate

Floats = np.ndarray


@dataclass(frozen=True)
class Steps:
    """Checkpoints' steps [T], and how many updates a recorded step may be: `least` to `most`, (1, 1) if it is one."""

    numbers: Floats
    least: float = 1.0
    most: float = 1.0

    @property
    def known(self) -> bool:
        """Whether recorded steps are optimizer steps."""
        return self.most == 1.0

    @classmethod
    def of(cls, steps: Sequence[int], unit: str) -> Steps:
        """Steps as recorded in `unit`; epochs and saves hold an unknown number of updates."""
        numbers = np.asarray(steps, np.float64)
        known = unit == "optimizer steps"
        return cls(numbers) if known else cls(numbers, at.UNKNOWN_LEAST, at.UNKNOWN_MOST)


@dataclass(frozen=True)
class Measured:
    """A candidate over the intervals between checkpoints `first`[i] and `last`[i] (indices, [I] all).

    `fall` = −ln(‖s'‖/‖s‖) and its standard deviation `sd` (as predicted, without the factor of calibration), `turn` =
    1 − cos, `across` = ‖Δs⊥‖² against chance. `holds`: it kept its direction as only a vector without gradient does.
    `moves`: it holds and shrank, surely; `rests`: it holds and did not move, within its sd; `same`: every element has
    the bits that it had. `present`: both checkpoints have it.
    """

    candidate: Candidate
    first: np.ndarray
    last: np.ndarray
    length: Floats
    fall: Floats
    sd: Floats
    turn: Floats
    across: Floats
    present: np.ndarray
    holds: np.ndarray
    moves: np.ndarray
    rests: np.ndarray
    same: np.ndarray
    alike: bool

    @property
    def rate(self) -> Floats:
        """Decay per recorded step, [I]."""
        return self.fall / self.length

    @property
    def error(self) -> Floats:
        """Standard deviation of `rate`, calibrated, [I]."""
        factor = at.SD_FACTOR_SUM if self.candidate.kind == "sum" else at.SD_FACTOR_SLICE
        return factor * self.sd / self.length


def measure(candidate: Candidate, steps: Steps, used: np.ndarray) -> Measured:
    """Compare a candidate at the checkpoints `used` (indices, ascending), each with the next.

    The angle is Kahan's, 2 atan2(‖û−v̂‖, ‖û+v̂‖): it is exact where arccos is not. The noise that turns a vector of d
    elements by 1 − cos = m stretches it by sqrt(2m/(d−1)) (sums), or sqrt(2mκ/(d−1)) with κ = d/d_eff where a few
    elements carry the length: that is the standard deviation, with a floor for roundings that repeat and do not turn.
    """
    v = candidate.values[used]
    first, last = used[:-1], used[1:]
    k = np.diff(steps.numbers[used])
    precision = at.PRECISIONS.get(candidate.dtype)
    d = v.shape[1]
    with np.errstate(all="ignore"):  # a vector may be absent, or zero: what follows is then NaN, and holds nowhere
        squares = v * v
        ss = squares.sum(axis=1)
        unit = v / np.sqrt(ss)[:, None]
        angle = 2 * np.arctan2(_length(unit[1:] - unit[:-1]), _length(unit[1:] + unit[:-1]))
        turn = 2 * np.sin(angle / 2) ** 2
        fall = 0.5 * np.log(ss[:-1] / ss[1:])
        effective = ss**2 / (squares * squares).sum(axis=1)
        effective = np.minimum(effective[:-1], effective[1:])
        share = candidate.elements / d  # a long vector is represented by d of its elements
        dd = _change(candidate, used)
        across = ss[1:] * share * np.sin(angle) ** 2 / _chance(candidate, v, dd, share)
        slice_like = candidate.kind != "sum"
        coarse = precision is not None and precision.copy  # its roundings are as uneven as the elements
        spread = d / effective if slice_like or coarse else 1.0
        sd = np.sqrt(2 * turn * spread / max(d - 1, 1)) + _floor(candidate, k * steps.most, precision)
        largest = np.abs(v).max(axis=1)
        size = np.sqrt(ss * share / candidate.tensor_vv[used])
        alive = largest > at.COLLAPSED
        if not slice_like:
            alive &= size > at.SPENT
        present = np.isfinite(v).all(axis=1)
        present = present[:-1] & present[1:]
        straight = _straight(candidate, turn, size[1:], k * steps.most, precision)
        limit = at.PERPENDICULAR if precision is None or not precision.copy else at.COPY_PERPENDICULAR
        holds = present & alive[:-1] & alive[1:] & (dd > 0) & straight & (across < limit)
        holds &= (d >= at.DIRECTIONS) & (effective >= at.EFFECTIVE) & (np.abs(fall) < at.MOST_DECAY) & (k > 0)
        moves = holds & (fall > 0) & (sd < at.SURE * fall)
        rests = holds & (not slice_like) & (np.abs(fall) < at.STILL * sd)
        mean = np.abs(v).mean(axis=1)
        alike = bool(np.nanmax(np.abs(v).std(axis=1) / mean, initial=0.0) < at.ALIKE)
    same = present & (v[1:] == v[:-1]).all(axis=1)
    return Measured(
        candidate, first, last, k, fall, sd, turn, across, present, holds, moves, rests, same, alike
    )  # fmt: skip


def turning(u: Floats, v: Floats) -> float:
    """1 − cos between two vectors [d]; NaN if one is zero."""
    with np.errstate(all="ignore"):
        a, b = u / np.linalg.norm(u), v / np.linalg.norm(v)
    return float(2 * np.sin(np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))) ** 2)


def _length(x: Floats) -> Floats:
    return np.sqrt(np.einsum("ij,ij->i", x, x))


def _change(candidate: Candidate, used: np.ndarray) -> Floats:
    """‖ΔW‖² of the whole tensor over each interval; over several checkpoints the sum, as of independent steps."""
    dd = np.where(np.isfinite(candidate.tensor_dd), candidate.tensor_dd, 0.0)
    total = np.cumsum(dd)
    return np.diff(total[used])


def _chance(candidate: Candidate, v: Floats, dd: Floats, share: float) -> Floats:
    """The squared change that chance gives such a vector: a sum of independent terms, or one of n equal parts."""
    if candidate.kind == "sum":
        return dd
    if candidate.kind == "slice":
        return dd / max(candidate.parts, 1)
    step = np.diff(v, axis=0)
    return np.einsum("ij,ij->i", step, step) * share


def _floor(candidate: Candidate, updates: Floats, precision: at.Precision | None) -> Floats:
    """Error of the log ratio by roundings that repeat, so that they do not turn the vector."""
    if candidate.kind == "sum":
        return np.full_like(updates, 1e-13)
    if precision is not None and precision.copy:
        return np.full_like(updates, precision.rounding if candidate.kind == "vector" else 0.0)
    return updates * (at.FLOOR_VECTOR if candidate.kind == "vector" else at.FLOOR_SLICE)


def _straight(
    candidate: Candidate, turn: Floats, size: Floats, updates: Floats, precision: at.Precision | None
) -> np.ndarray:
    """Whether the vector turned no more than rounding turns it; `size` is its length against the tensor's."""
    if precision is None:
        return np.zeros(turn.shape, bool)
    c = precision.rounding
    sums = candidate.kind == "sum"
    if precision.copy:
        return turn < np.minimum(at.COPY_TURNING, at.COPY_ROUNDINGS * c * c / (size**2 if sums else 1.0))
    rounding = at.ROUNDINGS_SUM * updates * c * c / size**2 if sums else at.ROUNDINGS_SLICE * (updates * c) ** 2
    return turn < np.minimum(at.TURNING, rounding)
