"""Clocks that tell the same decay, taken together; those that do not are kept apart: their average means nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from smd_analyze.schedule.clock_readings import Z95, Floats, Reading

AGREE_SD = 4.0  # standard deviations by which two clocks may differ and still tell the same
AGREE = 0.01  # relative, besides: known small errors (rows of classes that never occur run 2e-4 slow)
ULP = 2.0**-24  # fp32's step below 1: a slice may shrink by as much more or less per update
GAIN = 0.5  # of the best clock's standard deviation: less is not claimed, roundings of one tensor are not independent


@dataclass(frozen=True)
class Pool:
    """Clocks that agree, and their mean weighted by inverse variance. Arrays [I], NaN where none was read."""

    members: tuple[Reading, ...]
    total: Floats
    low: Floats
    high: Floats

    @property
    def resting(self) -> bool:
        """No decay acted, in any interval."""
        return all(m.resting for m in self.members)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The tensors whose clocks these are, each once."""
        return tuple(dict.fromkeys(m.parameter for m in self.members))

    @property
    def name(self) -> str:
        """`fc.weight`, or `fc.weight and 2 more`: the tensors that vouch for it, the surest first."""
        first, *others = self.parameters
        return first if not others else f"{first} and {len(others)} more"

    @property
    def proves_sgd(self) -> bool:
        """Whether a member moves as it can under the SGD family only."""
        return any(m.proves_sgd for m in self.members)

    @property
    def decoupled(self) -> bool:
        """Whether a member's decay was replayed bit by bit as decoupled."""
        return any(m.decoupled for m in self.members)

    @property
    def terms(self) -> str:
        """The first member in words: `fc.weight (sum over units)`."""
        return self.members[0].name

    @property
    def proof(self) -> str:
        """The first member that moves as it can under the SGD family only, in words."""
        return next((m.name for m in self.members if m.proves_sgd), self.terms)


def pools(readings: Sequence[Reading], updates: Floats) -> list[Pool]:
    """Clocks grouped by agreement, the largest group first. `updates`: optimizer steps per interval, NaN if unknown.

    Two clocks agree if their sums over the intervals that both have differ by no more than AGREE_SD standard
    deviations, AGREE and fp32's step of rounding. Clocks without a common interval do not contradict each other.
    """
    groups: list[list[Reading]] = []
    read = [r for r in readings if np.isfinite(r.total).any()]
    for reading in sorted(read, key=_uncertainty):
        home = next((g for g in groups if all(agree(reading, other, updates) for other in g[:8])), None)
        if home is None:
            groups.append([reading])
        else:
            home.append(reading)
    return [_pooled(tuple(g)) for g in sorted(groups, key=len, reverse=True)]


def agree(a: Reading, b: Reading, updates: Floats) -> bool:
    """Whether two clocks tell the same decay, as far as they know it."""
    both = np.isfinite(a.total) & np.isfinite(b.total)
    if not both.any():
        return True
    apart = abs(float((a.total - b.total)[both].sum()))
    sd = float(np.sqrt((a.sd**2 + b.sd**2)[both].sum()))
    size = max(float(a.total[both].sum()), float(b.total[both].sum()), 0.0)
    sums = a.functional.startswith(("sum", "within")) and b.functional.startswith(("sum", "within"))
    rounding = 0.0 if sums else ULP * float(np.nan_to_num(updates[both]).sum())
    return apart <= AGREE_SD * sd + AGREE * size + rounding


def _uncertainty(reading: Reading) -> float:
    """Relative width over all intervals that were read, the surest clock first; resting ones come last."""
    read = np.isfinite(reading.total)
    size = float(reading.total[read].sum())
    return float(reading.sd[read].sum()) / size if size > 0 else float("inf")


def _pooled(members: tuple[Reading, ...]) -> Pool:
    if len(members) == 1:
        return Pool(members, members[0].total, members[0].low, members[0].high)
    totals = np.array([m.total for m in members])
    sds = np.array([m.sd for m in members])
    size = np.nanmax(np.abs(totals), initial=0.0)
    sds = np.maximum(sds, 1e-9 * size + 1e-300)
    weights = np.where(np.isfinite(totals), 1 / sds**2, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(weights.any(axis=0), np.nansum(weights * totals, axis=0) / weights.sum(axis=0), np.nan)
    excess = np.nansum(weights * (totals - mean) ** 2)
    degrees = int((np.isfinite(totals).sum(axis=0) - 1).clip(min=0).sum())
    widened = max(1.0, float(np.sqrt(excess / degrees))) if degrees else 1.0  # what their scatter says of their errors
    with np.errstate(divide="ignore"):
        sd = np.maximum(widened / np.sqrt(weights.sum(axis=0)), GAIN / np.sqrt(weights.max(axis=0)))
    sd = np.where(np.isfinite(mean), sd, np.nan)
    return Pool(members, mean, mean - Z95 * sd, mean + Z95 * sd)
