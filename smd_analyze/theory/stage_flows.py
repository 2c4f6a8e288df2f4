"""What flows during a stage: updates, decay, half-lives, piece by piece of constant learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import log

import numpy as np

from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course
from smd_analyze.theory.laws import Law
from smd_analyze.theory.stage_cuts import Part
from smd_analyze.theory.timescales import FAR, TOLERANCE, covered, shares

NO_DECAY = "no decay: no equilibrium"
NO_PACE = "steps per epoch unknown: --steps-per-epoch N tells"


@dataclass(frozen=True)
class Flow:
    """Arrays [pieces], in order; NaN where not known.

    `spans`: recorded steps; `updates`: optimizer steps; `rates`: η (ηλ where no learning rate is known); `decays`: x_e
    per optimizer step (per recorded step where `updates` is NaN); `half_lives` of the linear variable y; `levels`: its
    equilibrium y*, up to a factor that all pieces share.
    """

    spans: Floats
    updates: Floats
    rates: Floats
    decays: Floats
    half_lives: Floats
    levels: Floats

    @property
    def counts(self) -> Floats:
        """How often `decays` act: optimizer steps, else recorded ones."""
        return np.where(np.isnan(self.updates), self.spans, self.updates)

    @property
    def decay(self) -> float:
        """Σx_e."""
        return float((self.decays * self.counts).sum())


def law_of_parts(course: Course, parts: Sequence[Part]) -> tuple[Law | None, str]:
    """The law that holds over some parts, or why there is none (or nothing to apply it to)."""
    indices = list(dict.fromkeys(p.first for p in parts))
    if all(course.decay[i] == 0 or course.weight_decay[i] == 0 for i in indices):
        return None, NO_DECAY
    for i in indices:
        trouble = course.trouble(i)
        if trouble:
            return None, trouble
        if np.isnan(course.decay[i]) and np.isfinite(course.weight_decay[i] + course.raw_first[i]):
            return None, NO_PACE
    law = course.laws[indices[-1]]
    return (law, "") if isinstance(law, Law) else (None, str(law))


def flow_of(course: Course, parts: Sequence[Part]) -> Flow:
    """The flow of consecutive parts."""
    return joined([_part_flow(course, part) for part in parts])


def joined(flows: Sequence[Flow]) -> Flow:
    """Flows one after the other."""
    return Flow(*(np.concatenate([getattr(f, field.name) for f in flows]) for field in fields(Flow)))


def _part_flow(course: Course, part: Part) -> Flow:
    i, span = part.first, part.stop - part.start
    law, a = course.laws[i], float(course.momentum[i])
    rates, decays, updates = course.pieces(i)
    if len(rates) == 2 and not part.moves:  # one side of a drop
        side = slice(0, 1) if part.stop < course.steps[i] else slice(1, 2)
        rates, decays, updates = rates[side], decays[side], updates[side]
    spans = span * updates / updates.sum() if np.isfinite(updates).all() else np.array([span])
    if np.isnan(updates).any():  # only the sum is known
        rates, decays = np.array([course.raw_first[i]]), np.array([course.decay[i] / span])
    unknown = np.full(len(decays), np.nan)
    rates = decays if np.isnan(rates).all() else rates
    if (decays == 0).all():
        return Flow(spans, updates, rates, decays, 0 * decays, unknown)
    if isinstance(law, str) or course.trouble(i):
        return Flow(spans, updates, rates, unknown, unknown, unknown)
    slow = decays * law.amplification(a)
    if np.isnan(updates).any():
        return Flow(spans, updates, rates, slow, law.power * slow * spans / log(2), unknown)
    relaxation = np.where(decays == 0, 0.0, law.relaxation_rate(decays, a, float(course.beta2[i])))
    if law.coupled and 0 < a < 1:  # beyond A = 1/16 the norm oscillates and its envelope falls as α^{t/2}
        relaxation = np.where(np.isnan(relaxation) & (decays > 0), -log(a) / 2, relaxation)
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.where(decays > 0, law.level(rates, decays, a), np.nan)
    return Flow(spans, updates, rates, slow, relaxation * updates / log(2), levels)


def stage_shares(flows: Sequence[Flow]) -> tuple[list[float], float]:
    """Share of each flow in what updates added to the final weights, and the factor left of the weights before."""
    total = joined(flows)
    if np.isnan(total.decays + total.rates).any():
        return [np.nan] * len(flows), np.nan
    each, log_left = shares(total.rates, total.decays, total.counts)
    ends = np.cumsum([len(f.rates) for f in flows])[:-1]
    return [float(part.sum()) for part in np.split(each, ends)], float(np.exp(log_left))


def lag(flow: Flow, power: int) -> float:
    r"""‖w‖ at the end over its equilibrium value there, whatever it began with; NaN where the start still matters.

    $$ y_T = \sum_i y^*_i (1 - 2^{-h_i})\prod_{j>i} 2^{-h_j} + y_0\prod_j 2^{-h_j} $$

    over pieces of constant learning rate, y = ‖w‖^p. "Whatever": starts from nothing and from FAR times the largest
    level differ by less than TOLERANCE in ‖w‖ at the end.
    """
    if not (np.isfinite(flow.levels).all() and np.isfinite(flow.half_lives).all()):
        return np.nan
    after = np.append(np.cumsum(flow.half_lives[::-1])[::-1][1:], 0.0)
    reached = float((flow.levels * covered(flow.half_lives) * 2.0**-after).sum())
    start = FAR**power * float(flow.levels.max()) * 2.0 ** -float(flow.half_lives.sum())
    least, most = ((y / float(flow.levels[-1])) ** (1 / power) for y in (reached, reached + start))
    return least if most < (1 + TOLERANCE) * least else np.nan


def tail(flow: Flow, share: float = 0.1) -> float:
    """Recorded steps before the end from which on y can cover at most `share` of any way; all of them if need be."""
    left = np.cumsum(flow.half_lives[::-1])
    limit = -np.log2(1 - share)
    if not np.isfinite(left).all():
        return np.nan
    spans = np.cumsum(flow.spans[::-1])
    return float(np.interp(limit, np.append(0.0, left), np.append(0.0, spans)))
