"""Which decay rule a clock follows: the shape of Σ decay over the intervals under each rule, against what it lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smd_analyze.schedule.clock_readings import Floats
from smd_analyze.schedule.decay_rules import INDEPENDENT, TIED, USUAL

FEWEST = 4  # intervals that tell a shape
VARIES = 1.5  # factor over which the learning rate must have gone: at a constant one all rules are alike
MISSES = 0.05  # misfit of the configured rule from which on another is looked for
FITS = 0.02  # misfit up to which a rule fits; the clock's own intervals are allowed for besides
BETTER = 4.0  # times smaller must the misfit of the other be


@dataclass(frozen=True)
class Better:
    """A rule that fits better than the configured one. Misfits are relative scatter about one constant factor.

    `factor`: clock over what the rule gives with the configured λ; about 1 confirms λ as well.
    """

    rule: str
    misfit: float
    configured_misfit: float
    factor: float
    intervals: int


def better_rule(
    clock: Floats, low: Floats, high: Floats, under_rules: Mapping[str, Sequence[float]], configured: str
) -> Better | None:
    """The rule whose Σ decay is proportional to the clock's Σηλ where the configured rule's is not; else None.

    `clock`, `low`, `high` [I]: Σηλ with its 95 % interval; `under_rules`: rule → Σ decay [I] with one λ. Only shapes
    are compared, so λ need not be known; "tied" has the usual rule's shape and is told by its factor elsewhere.
    """
    shapes = {r: np.asarray(v, np.float64) for r, v in under_rules.items() if r != TIED or r == configured}
    shape = shapes.get(configured, shapes.get(USUAL) if configured == TIED else None)
    if shape is None:
        return None
    usable = np.isfinite(clock) & (clock > 0) & np.all([np.isfinite(s) & (s > 0) for s in shapes.values()], axis=0)
    if usable.sum() < FEWEST:
        return None
    slack = 0.5 * (high - low)[usable] / clock[usable]
    fits = {r: _fit(clock[usable], s[usable], slack) for r, s in shapes.items()}
    usual = shapes[USUAL][usable] if USUAL in shapes else shape[usable]
    per = usual / shapes.get(INDEPENDENT, np.ones(len(clock)))[usable]  # mean η of each interval
    if per.max() < VARIES * per.min():
        return None
    own = fits[configured]
    best = min(fits, key=lambda r: fits[r][0])
    misfit, factor = fits[best]
    if best == configured or own[0] < MISSES or misfit > FITS or own[0] < BETTER * misfit:
        return None
    return Better(best, misfit, own[0], factor, int(usable.sum()))


def _fit(clock: Floats, shape: Floats, slack: Floats) -> tuple[float, float]:
    """(scatter of ln(clock/shape) beyond the clock's own intervals, factor), intervals weighted by what is known."""
    log = np.log(clock / shape)
    weight = 1 / np.maximum(slack, 1e-3) ** 2
    middle = float(np.average(log, weights=weight))
    beyond = np.maximum(np.abs(log - middle) - slack, 0.0)
    return float(np.sqrt(np.mean(beyond**2))), float(np.exp(middle))
