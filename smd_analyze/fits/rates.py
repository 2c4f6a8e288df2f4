"""Quantities relaxation_rate and relaxation_rate_ratio: printed where no drift of the gradient's scale can feign them.

Over a stretch of constant learning rate a drifting scale and a wrong rate look alike, and no test on one layer's norms
tells them apart once the scale follows no straight line. So a rate with its 95 % is printed across a change of the
learning rate only, where it is identifiable under drift. Over a stretch in which, with theory's rate, the gradient
scales of the units are steady, and whose fit holds theory's rate, the fit is shown as consistent with theory: it was
chosen for that, so it confirms nothing and claims no coverage. Everything else is "not separable".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from smd_analyze.fits import checks
from smd_analyze.fits.context import LEVEL, Context, Row
from smd_analyze.fits.drop import fit_ratio
from smd_analyze.fits.maps import segment
from smd_analyze.fits.outcomes import Kind, Outcome
from smd_analyze.fits.regime import Regime
from smd_analyze.fits.scale import Scale
from smd_analyze.fits.second_moment import lag
from smd_analyze.fits.stationary import why_not
from smd_analyze.fits.window import EACH_SIDE, SPACING, Window, find_window, stretch_window

UNITS = 12  # units fitted per group, evenly chosen: the summary is their median
VALID = 0.05  # largest momentum number A at which the corrected map is used
WIDE = 3.0  # an interval whose ends differ by more than this factor tells nothing
JUMP = 0.6  # of ln L: by which it may jump at a change of the learning rate, ×0.55 to ×1.8, in 95 % of cases
LARGEST = 100.0  # factor of L beyond which no larger jump is tried
FEWEST = 10  # intervals over which steadiness is tested, without a change of the learning rate
MANY = 8  # units whose tests together tell a steady scale: one series alone passes by chance
REJECTED = 0.15  # share of the units whose scale may seem to drift at 5 %
RIGHT = "theory's rate, if the gradient scale did not jump by more than allowed for"
WRONG = "not theory's rate, or the gradient scale jumped by more than allowed for"
STEADY = "consistent with theory's rate; a disagreement could not be told from a drifting gradient scale"
WIDENED = ", widened for a jump of L (×0.55 to ×1.8, or as seen) and for a bend"
CHOSEN = "; shown only where it holds theory's rate with a steady scale: no coverage claimed"
METHOD = (
    "‖w‖{} {}: rate × ρ, gradient scale L0·exp(bt/T); profile likelihood, "
    "median of {} units and of their 95 % intervals{}"
)


def relaxation_rows(c: Context) -> list[Row]:
    """Rows relaxation_rate [1/step, at the last learning rate] and relaxation_rate_ratio (over theory), or why not."""
    r, vv = c.regime, c.series.vv
    drift = Outcome.DRIFT.said(advice=(EACH_SIDE + 1, round(SPACING * r.smear)))
    if not c.invariant:
        return []
    if c.present < 2 or r.gap or r.no_decay:
        return [c.row("relaxation_rate", **_briefly(why_not(c)))]
    if c.held:
        return [c.row("relaxation_rate", **_briefly(Outcome.HELD.said()))]
    window = find_window(r)
    if window is None and units_are_steady(c.scale):
        window = stretch_window(r)
    if window is None:
        return [c.row("relaxation_rate", checks=checks.told(c, checks.steady, checks.uncorrelated), **drift)]
    if window.validity.max() > VALID:
        words = f"momentum too strong for the map: A = {window.validity.max():.2g}"
        return [c.row("relaxation_rate", outcome=words, kind=str(Kind.NOT_APPLICABLE))]
    good = np.flatnonzero(np.isfinite(vv[window.edges]).all(axis=0) & (vv[window.edges] > 0).all(axis=0))
    if not len(good):
        return [c.row("relaxation_rate", outcome="no unit with finite norms throughout", kind=str(Kind.NOT_APPLICABLE))]
    chosen = good[np.unique(np.linspace(0, len(good) - 1, UNITS).astype(int))]
    y = vv[np.ix_(window.edges, chosen)] ** (window.power // 2)
    best, low, high = (np.exp(x) for x in robust_ratio(y, window, behind(r, vv[:, chosen], window)))
    ratio, bottom, top = (float(np.median(x)) for x in (best, low, high))
    change = np.isfinite(window.change)
    told = np.isfinite(bottom + top) and bottom > 0 and top / bottom < WIDE
    if not told or (not change and not bottom <= 1 <= top):
        return [c.row("relaxation_rate", checks=checks.told(c, checks.steady, checks.uncorrelated), **drift)]
    p10, p90 = np.percentile(best, [10, 90])
    theory = theory_rate(window)
    where = f"across the learning-rate change at step {window.change:g}" if change else "at a constant learning rate"
    more = {
        "method": METHOD.format("⁴" if window.power == 4 else "²", where, len(chosen), WIDENED if change else CHOSEN),
        "level": LEVEL if change else None,
        "outcome": WRONG if not bottom <= 1 <= top else RIGHT if change else STEADY,
        "kind": str(Kind.ESTIMATED),
        "checks": checks.told(c, checks.small_decay, checks.momentum_number, checks.spacing),
    }
    rate = [ratio * theory, bottom * theory, top * theory]
    return [
        c.row("relaxation_rate", *rate, p10=p10 * theory, p90=p90 * theory, **more),
        c.row("relaxation_rate_ratio", ratio, bottom, top, p10=p10, p90=p90, **more),
    ]


def _briefly(said: dict[str, Any]) -> dict[str, Any]:
    """The outcome without its advice, which the equilibrium index gives."""
    return said | {"advice": ""}


def robust_ratio(y: np.ndarray, w: Window, behind: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    """(ln ρ, low, high) [units] as `fit_ratio`, widened for what the gradient's scale may do besides drifting.

    A lower learning rate lets the loss fall, and gradients with it; later they may drift the other way. Such a jump is
    not identifiable besides ρ: its 95 % range ±JUMP (of ln L), or ± what theory's rate implies where that is larger,
    moves ln ρ by what two more fits tell, and so does ± the bend of ln L at the change that theory's rate implies. Both
    join the interval in quadrature.
    """
    best, low, high = fit_ratio(y, w, behind)
    if not np.isfinite(w.change):
        return best, low, high
    acted = (w.eta * w.updates).sum(axis=1) / w.updates.sum(axis=1)
    after = np.abs(acted - w.eta[-1, -1]) < np.abs(acted - w.eta[0, 0])
    lags = np.ones((len(w.updates), y.shape[1])) if behind is None else behind
    jump, bend = scale_course(y, w, after)
    since = np.where(after, _middles(w) - _middles(w)[after].min(), 0.0)
    for shape in (max(JUMP, abs(jump)) * after, bend * since):
        if not shape.any():
            continue
        ends = [fit_ratio(y, w, np.exp(sign * shape)[:, None] * lags)[0] for sign in (-1, 1)]
        down, up = (np.maximum(s * (f([best, *ends], axis=0) - best), 0) for s, f in ((-1, np.min), (1, np.max)))
        low, high = best - np.hypot(best - low, down), best + np.hypot(high - best, up)
    return best, low, high


def _middles(w: Window) -> np.ndarray:
    """Middles of the window's intervals [m], in units of its length."""
    ends = np.cumsum(w.updates.sum(axis=1))
    return (ends - 0.5 * w.updates.sum(axis=1)) / ends[-1]


def scale_course(y: np.ndarray, w: Window, after: np.ndarray) -> tuple[float, float]:
    """(jump, bend) of ln L at the change, at theory's rate: of straight lines through ln L before and after it.

    y [m + 1, units], of which the median L of each interval is taken: units share the loss. `after` [m]: which
    intervals follow the change. `bend` is the slopes' difference per length of the window. (0, 0) with fewer than
    three intervals on a side.
    """
    if min(after.sum(), (~after).sum()) < 3:
        return 0.0, 0.0
    scale = np.empty(len(after))
    for i in range(len(after)):
        phi, b = 1.0, 0.0
        for p in np.flatnonzero(w.updates[i] > 0):
            one, source, _ = segment(w.eta[i, p], w.decay[i, p], w.updates[i, p], w.power)
            phi, b = phi * float(one), b * float(one) + float(source)
        scale[i] = np.median(y[i + 1] - phi * y[i]) / b
    logs = np.log(np.clip(scale / np.abs(np.median(scale)), 1 / LARGEST, LARGEST))
    middle = _middles(w)
    (slope, start), (later, end) = (np.polyfit(middle[side], logs[side], 1) for side in (~after, after))
    at = 0.5 * (middle[~after].max() + middle[after].min())
    return float(end + later * at - start - slope * at), float(later - slope)


def units_are_steady(found: Scale | None) -> bool:
    """Whether theory's rate and a steady gradient scale hold together: enough intervals and units, few rejections.

    On trained networks 30 to 90 % of the units of every layer reject, where 5 % would by chance.
    """
    from scipy.special import stdtrit  # heavy

    if found is None or found.intervals < FEWEST:
        return False
    t = found.drift[np.isfinite(found.drift)]
    if len(t) < MANY:
        return False
    rejected = float(np.mean(np.abs(t) > float(stdtrit(found.intervals - 2, 0.975))))
    q, limit = checks.ljung_box(found)
    return rejected <= REJECTED and abs(float(np.median(t))) < 1 and q < limit


def behind(r: Regime, n: np.ndarray, w: Window) -> np.ndarray | None:
    """What Adam's second moment, behind the norm, makes of the step's length [intervals of the window, units].

    n [T, units]. None for other optimizers, or if β₂ is not known.
    """
    beta2 = r.beta2[w.edges[0]]
    if r.optimizer != "adamw" or not np.isfinite(beta2):
        return None
    at = np.arange(w.edges[-1] + 1)  # from the first checkpoint on: v remembers
    at = at[np.isfinite(n[at]).all(axis=1) & (n[at] > 0).all(axis=1)]
    made = np.concatenate([[0.0], np.cumsum(r.updates)])[at]
    each, spans = lag(n[at], np.diff(made), float(beta2)), np.diff(made)
    inside = [(at[:-1] >= a) & (at[1:] <= b) for a, b in zip(w.edges, w.edges[1:], strict=False)]
    return np.array([np.average(each[i], axis=0, weights=spans[i]) for i in inside])


def theory_rate(w: Window) -> float:
    """r per step at the window's last learning rate."""
    x, number = float(w.decay[-1, -1]), float(w.validity[-1])
    return textbook_rate(x, number) if w.power == 4 else 2 * x


def textbook_rate(decay: float, validity: float) -> float:
    """r of S near equilibrium, per step: 4x_e(1 + 4A + 1.5x_e), to first order in A = αηλ/(1−α)² and x_e."""
    return 4 * decay * (1 + 4 * validity + 1.5 * decay)
