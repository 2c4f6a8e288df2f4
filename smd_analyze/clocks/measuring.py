"""Candidates, interval by interval: how much each shrank, how much it turned, and what chance would have done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smd_analyze.clocks import thresholds as at
from smd_analyze.records.clocks import Candidate

Floats = np.ndarray
OPTIMIZER_STEPS = "optimizer steps"
AT_ONCE = 1 << 21  # numbers that are compared at once


@dataclass(frozen=True)
class Steps:
    """Checkpoints' steps [T], and how many updates a recorded step may be: `least` to `most`, (1, 1) if it is one.

    `word` names what is counted: "step", "epoch", "save".
    """

    numbers: Floats
    least: float = 1.0
    most: float = 1.0
    word: str = "step"

    @property
    def known(self) -> bool:
        """Whether recorded steps are optimizer steps."""
        return self.most == 1.0

    @property
    def counted(self) -> bool:
        """Whether it is known how many updates a recorded step is."""
        return self.most == self.least

    @classmethod
    def of(cls, steps: Sequence[int], unit: str) -> Steps:
        """Steps as recorded in `unit`; epochs and saves hold an unknown number of updates."""
        numbers = np.asarray(steps, np.float64)
        if unit == OPTIMIZER_STEPS:
            return cls(numbers)
        return cls(numbers, at.UNKNOWN_LEAST, at.UNKNOWN_MOST, unit.removesuffix("s"))


@dataclass(frozen=True)
class Measured:
    """A candidate over the intervals between checkpoints `first`[i] and `last`[i] (indices, [I] all).

    `fall` = −ln(‖s'‖/‖s‖) and its standard deviation `sd` (as predicted, without the factor of calibration), `turn` =
    1 − cos, `across` = ‖Δs⊥‖² against chance. `holds`: it kept its direction as only a vector without gradient does.
    `moves`: it holds and shrank, surely; `grows`: it became longer, surely; `rests`: it did not move, within its sd.
    `firm`: it is long enough for rounding not to make another vector of it. `same`: every element has its
    old bits. `present`: both checkpoints have it.
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
    grows: np.ndarray
    firm: np.ndarray
    same: np.ndarray
    alike: bool

    @cached_property  # asked for interval by interval
    def rate(self) -> Floats:
        """Decay per recorded step, [I]."""
        return self.fall / self.length

    @cached_property
    def error(self) -> Floats:
        """Standard deviation of `rate`, calibrated, [I]."""
        factor = at.SD_FACTOR_SUM if self.candidate.kind == "sum" else at.SD_FACTOR_SLICE
        return factor * self.sd / self.length


def measure(candidates: Sequence[Candidate], steps: Steps, used: np.ndarray) -> list[Measured]:
    """Compare every candidate at the checkpoints `used` (indices, ascending), each with the next."""
    out: dict[int, Measured] = {}
    bundles: dict[tuple[str, str, int], list[int]] = {}
    for number, c in enumerate(candidates):
        bundles.setdefault((c.kind, c.dtype, c.values.shape[1]), []).append(number)
    for (_, _, d), numbers in bundles.items():
        many = max(1, AT_ONCE // (len(used) * d))
        for begin in range(0, len(numbers), many):
            part = numbers[begin : begin + many]
            out |= zip(part, _measure([candidates[n] for n in part], steps, used), strict=True)
    return [out[number] for number in range(len(candidates))]


def _measure(candidates: Sequence[Candidate], steps: Steps, used: np.ndarray) -> list[Measured]:
    """Candidates of one kind, dtype and length together: [n, T, d].

    The angle is Kahan's, 2 atan2(‖û−v̂‖, ‖û+v̂‖): it is exact where arccos is not. The noise that turns a vector of d
    elements by 1 − cos = m stretches it by sqrt(2m/(d−1)) (sums), or sqrt(2mκ/(d−1)) with κ = d/d_eff where a few
    elements carry the length: that is the standard deviation, with a floor for roundings that repeat and do not turn.
    """
    kind = candidates[0].kind
    precision = at.PRECISIONS.get(candidates[0].dtype)
    coarse = precision is not None and precision.copy
    v = np.stack([c.values[used] for c in candidates])
    k = np.diff(steps.numbers[used])
    d = v.shape[2]
    share = np.array([[c.elements / d] for c in candidates])  # a long vector is represented by d of its elements
    dd = np.stack([_change(c, used) for c in candidates])
    with np.errstate(all="ignore"):  # a vector may be absent, or zero: what follows is then NaN, and holds nowhere
        ss = np.einsum("nti,nti->nt", v, v)
        unit = v / np.sqrt(ss)[:, :, None]
        angle = 2 * np.arctan2(_length(unit[:, 1:] - unit[:, :-1]), _length(unit[:, 1:] + unit[:, :-1]))
        turn = 2 * np.sin(angle / 2) ** 2
        fall = 0.5 * np.log(ss[:, :-1] / ss[:, 1:])
        effective = 1 / np.einsum("nti,nti->nt", unit**2, unit**2)
        effective = np.minimum(effective[:, :-1], effective[:, 1:])
        if kind == "sum":
            chance = dd
        elif kind == "slice":
            chance = dd / np.array([[max(c.parts, 1)] for c in candidates])
        else:
            chance = _length(v[:, 1:] - v[:, :-1]) ** 2 * share
        across = ss[:, 1:] * share * np.sin(angle) ** 2 / chance
        uneven = d / effective if kind != "sum" or coarse else 1.0  # roundings of copies are as uneven as elements
        size = np.sqrt(ss * share / np.stack([c.tensor_vv[used] for c in candidates]))
        noise = turn
        if precision and coarse:  # what moves by less than an ulp of its copies turns by chance only: two roundings
            least = (precision.rounding / size[:, 1:]) ** 2 if kind == "sum" else precision.rounding**2
            noise = np.maximum(turn, least)
        sd = np.sqrt(2 * noise * uneven / max(d - 1, 1)) + _floor(kind, k * steps.most, precision)
        alive = np.abs(v).max(axis=2) > at.COLLAPSED
        if kind == "sum":
            alive &= size > at.SPENT
        whole = np.asarray(np.isfinite(v).all(axis=2))
        present = whole[:, :-1] & whole[:, 1:]
        bound = np.broadcast_to(_rounding(kind, size[:, 1:], k * steps.most, precision), turn.shape)
        most = np.minimum(bound, at.COPY_TURNING if coarse else at.TURNING)
        if kind == "sum" and not coarse:
            late = np.minimum(bound * (at.SPENT_ROUNDINGS / at.ROUNDINGS_SUM), at.SPENT_TURNING)
            most = np.maximum(most, late)
        straight = turn < most
        holds = present & alive[:, :-1] & alive[:, 1:] & (dd > 0) & straight
        copied = at.COPY_PERPENDICULAR if kind == "sum" else at.COPY_PERPENDICULAR_SLICE
        holds &= across < (copied if coarse else at.PERPENDICULAR)
        firm = alive[:, :-1] & alive[:, 1:] & (bound > 0) & (bound < at.FIRM)
        holds &= (d >= at.DIRECTIONS) & (effective >= at.EFFECTIVE) & (np.abs(fall) < at.MOST_DECAY) & (k > 0)
        moves = holds & (fall > 0) & (sd < at.SURE * fall)
        grows = holds & (fall < 0) & (sd < at.SURE * -fall)
        rests = holds & (kind == "sum") & (np.abs(fall) < at.STILL * sd)
        spread = np.abs(v).std(axis=2) / np.abs(v).mean(axis=2)
        alike = ~(spread >= at.ALIKE).any(axis=1)
    same = present & (v[:, 1:] == v[:, :-1]).all(axis=2)
    return [
        Measured(
            c, used[:-1], used[1:], k, fall[n], sd[n], turn[n], across[n], present[n], holds[n], moves[n], rests[n],
            grows[n], firm[n], same[n], bool(alike[n]),
        )
        for n, c in enumerate(candidates)
    ]  # fmt: skip


def turning(u: Floats, v: Floats) -> float:
    """1 − cos between two vectors [d]; NaN if one is zero."""
    with np.errstate(all="ignore"):
        a, b = u / np.linalg.norm(u), v / np.linalg.norm(v)
    return float(2 * np.sin(np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))) ** 2)


def _length(x: Floats) -> Floats:
    return np.sqrt(np.einsum("nti,nti->nt", x, x))


def _change(candidate: Candidate, used: np.ndarray) -> Floats:
    """‖ΔW‖² of the whole tensor over each interval; over several checkpoints the sum, as of independent steps."""
    dd = np.where(np.isfinite(candidate.tensor_dd), candidate.tensor_dd, 0.0)
    return np.diff(np.cumsum(dd)[used])


def _floor(kind: str, updates: Floats, precision: at.Precision | None) -> Floats | float:
    """Error of the log ratio by roundings that repeat, so that they do not turn the vector."""
    if kind == "sum":
        return at.FLOOR_SUM
    if precision is not None and precision.copy:
        return precision.rounding if kind == "vector" else 0.0
    return updates * (at.FLOOR_VECTOR if kind == "vector" else at.FLOOR_SLICE)


def _rounding(kind: str, size: Floats, updates: Floats, precision: at.Precision | None) -> Floats | float:
    """The largest 1 − cos that rounding explains, 0 if unknown; `size` is the vector's length against the tensor's."""
    if precision is None:
        return 0.0
    c = precision.rounding
    if precision.copy:
        return at.COPY_ROUNDINGS * c * c / (size**2 if kind == "sum" else 1.0)
    return at.ROUNDINGS_SUM * updates * c * c / size**2 if kind == "sum" else at.ROUNDINGS_SLICE * (updates * c) ** 2
