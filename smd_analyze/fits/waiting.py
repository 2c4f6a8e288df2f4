"""Quantity steps_to_equilibrium: updates left until the norm is within 10 % (of ‖w‖⁴ or ‖w‖²) of where it settles.

The equilibrium index over a stretch of τ relaxation times tells the distance at its end, D = Y/Y* − 1: from
Y_end/Y_begin = e^{τ·EI} and Y − Y* ∝ e^{−t}, D = (1 − e^{τ·EI})/(e^{τ(1+EI)} − 1). Theory's rate brings it to eps in
ln(|D|/eps)/r updates. At a constant learning rate, and if the gradient's scale stays as it is.
"""

from __future__ import annotations

import numpy as np

from smd_analyze.fits import checks, index
from smd_analyze.fits.context import Context, Row
from smd_analyze.fits.outcomes import Kind, Outcome
from smd_analyze.fits.rates import textbook_rate, units_are_steady

EPS = 0.1  # the tolerance of the equilibrium index
METHOD = "equilibrium index over the last {} intervals and theory's rate, to within {:g} % of the level of ‖w‖{}"


def waiting_rows(c: Context) -> list[Row]:
    """The one row of steps_to_equilibrium, where the norm is known to move at a constant learning rate."""
    found, r = c.stationarity, c.regime
    if not c.invariant or found is None or c.moving or c.held or not np.isfinite(found.low):
        return []
    if c.since is not None:
        return [c.row("steps_to_equilibrium", 0.0, method="stationary already", **Outcome.STATIONARY.said())]
    if found.high < -1 or r.momentum_number > 1 / 16:
        return []
    x = float(r.decay[-1] / r.updates[-1])
    number = r.momentum_number if r.power == 4 else 0.0
    rate = textbook_rate(x, number) if r.power == 4 else 2 * x
    tau = r.power * float(r.decay[found.first :].sum())
    value, *ends = (left(distance(ei, tau), rate) for ei in (found.value, found.low, found.high))
    low = 0.0 if abs(found.value) < EPS or found.low < 0 < found.high else min(ends)
    holds = units_are_steady(c.scale)
    method = METHOD.format(found.blocks, 100 * EPS, "⁴" if r.power == 4 else "²")
    if not holds:
        method += "; its ends claim no coverage: the gradient scale is not known to be steady"
    more = {"method": method, "kind": str(Kind.ESTIMATED), "outcome": "if the gradient scale stays"}
    if not np.isfinite(value):
        more |= {"outcome": "longer than can be told", "kind": str(Kind.TOO_FEW)}
    checked = checks.told(c, checks.momentum_number, checks.steady)
    return [
        c.row(
            "steps_to_equilibrium", value, low, max(ends), level=index.LEVEL if holds else None, checks=checked, **more
        )
    ]


def distance(ei: float, tau: float) -> float:
    """D = Y/Y* − 1 at the end of a stretch of `tau` relaxation times with equilibrium index `ei`; infinite at −1."""
    if ei <= -1:
        return np.inf
    return float(-np.expm1(tau * ei) / np.expm1(tau * (1 + ei)))


def left(distance_now: float, rate: float) -> float:
    """Updates until |D| is EPS, 0 if it is."""
    return float(max(np.log(abs(distance_now) / EPS), 0.0) / rate) if distance_now else 0.0
