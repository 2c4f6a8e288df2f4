"""Histories of the tensors that are looked at for decay clocks, until each is complete and can be judged."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from smd_analyze.statistics.looks import Look
from smd_analyze.statistics.screening import KEPT, Screened, screen, thinned
from smd_analyze.statistics.subjects import Subject

if TYPE_CHECKING:
    from smd_analyze.statistics.sums import ChunkSums

VV, DD = 0, 1
ROOM = 4 << 20  # numbers that the sums and vectors that were found may take together


@dataclass
class History:
    """What the pass kept of one tensor. T counts the run's checkpoints; NaN where one lacks the tensor.

    over: [T, kept] its sums over units, or a vector's elements. within: [T, kept] sums within units. turns: for each
    axis [pairs, 3, slices], Σ v², Σ (v−u)², Σ (v−u)·v of the slices' samples between neighbouring anchors.
    vv, dd: [T] of the whole tensor, dd against the checkpoint before (NaN at the first).
    """

    subject: Subject
    over: np.ndarray
    within: np.ndarray
    turns: tuple[np.ndarray, ...]
    vv: np.ndarray
    dd: np.ndarray
    awaited: int


def history(subject: Subject, checkpoints: int) -> History:
    """An empty one."""
    pairs = max(0, len(subject.anchors) - 1)
    return History(
        subject,
        np.zeros((checkpoints, subject.over_kept)),
        np.zeros((checkpoints, subject.within_kept)),
        tuple(np.zeros((pairs, 3, axis.looked_at.size)) for axis in subject.slices),
        np.zeros(checkpoints),
        np.zeros(checkpoints),
        subject.numel * checkpoints,
    )


@dataclass
class Ledger:
    """Adds what workers looked at in the order in which it is given, and judges each tensor when it is complete."""

    checkpoints: int
    screened: list[Screened] = field(default_factory=list)
    open: dict[str, History] = field(default_factory=dict)
    most: int = ROOM // 32
    kept: int = 0

    def add(self, result: ChunkSums) -> None:
        """Take over what one item kept."""
        for look in result.item.chunk.looks:
            name = look.subject.parameter
            known = self.open.get(name) or self.open.setdefault(name, history(look.subject, self.checkpoints))
            with np.errstate(invalid="ignore"):  # infinite weights: their sums may be none
                _enter(known, look, result)
            if known.awaited == 0:
                del self.open[name]
                self._keep(screen(known))

    def _keep(self, seen: Screened) -> None:
        """One more; where there is no room for all, each is kept by fewer elements."""
        self.screened.append(self._fitted(seen))
        self.kept += sum(candidate.values.size for candidate in self.screened[-1].found)
        while self.kept > ROOM and self.most > KEPT * self.checkpoints:
            self.most //= 2
            self.screened = [self._fitted(one) for one in self.screened]
            self.kept = sum(candidate.values.size for one in self.screened for candidate in one.found)

    def _fitted(self, seen: Screened) -> Screened:
        """With at most `most` numbers for each of its candidates."""
        return replace(seen, found=tuple(thinned(candidate, self.most) for candidate in seen.found))


def _enter(known: History, look: Look, result: ChunkSums) -> None:
    looked, steps = result.looked, slice(result.item.begin, result.item.end)
    if looked is None:
        return
    for total, kept in ((known.over, look.over), (known.within, look.within)):
        part = looked.folds[:, kept.column : kept.column + kept.count]
        total[steps, kept.first : kept.first + kept.count] += part
    pairs = slice(looked.first_pair, looked.first_pair + len(looked.turns))
    for total, kept in zip(known.turns, look.turns, strict=True):
        part = looked.turns[:, :, kept.column : kept.column + kept.count]
        total[pairs, :, kept.first : kept.first + kept.count] += part
    for number in look.spans:
        span = result.item.chunk.spans[number]
        slots = slice(span.slot, span.slot + span.units)
        known.vv[steps] += result.sums[:, VV, slots].sum(axis=1)
        known.dd[steps] += result.sums[:, DD, slots].sum(axis=1)
    known.awaited -= (look.end - look.begin) * (steps.stop - steps.start)
