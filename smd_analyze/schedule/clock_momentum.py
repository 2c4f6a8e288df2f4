"""Momentum read off the weights: how much decay is missing while the buffer fills, right after training began.

Under heavy ball a clock loses, from an empty buffer on, the decay of α/(1−α) updates less than the settled rate would
take; under Nesterov α²/(1−α), under plain SGD and SGDW nothing (`decay_formulas.filling_loss` has it exactly). Clocks
are good to 1e-6, so that α comes to three digits and more. What else could have taken as much away:

- a learning rate that was warmed up within the first interval. It can only add to what is missing, so the reading
  bounds α from above; that it should make just a value in use is as improbable as `chance` says;
- a buffer that was not empty: a resumed optimizer whose steps are counted from 0 again. Then less is missing, at most
  all: "no momentum" may be that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from smd_analyze.decay_formulas import filling_loss, velocity_lag
from smd_analyze.schedule.beginning import Beginning, beginnings
from smd_analyze.schedule.clock_readings import Z95, Floats

IN_USE = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.93, 0.937, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999)
"""Momenta that people type."""
NONE_BELOW = 0.3  # an α that is surely smaller is none: nobody types one between
PERHAPS_NONE = 0.6  # the same, where none is likelier than a value below
FITS = 4.0  # standard deviations by which any interval may miss the model
MATCHES = 3.0  # standard deviations by which a value in use may miss the reading …
MATCHES_LEAST = 1e-4  # … or so much of 1−α: what the model leaves out
UNLIKELY = 0.1  # chance of a warm-up giving a value in use from which on it is not believed
FULL = 1e-3  # of the buffer that may still be missing where the first intervals were extrapolated
ROUNDS = 5  # of closing in on α
TELLS = 9.0  # difference of χ² that tells one form from the other


@dataclass(frozen=True)
class Form:
    """The best α of one form of momentum with its 95 % interval, χ², the settled rate, the nearest of the
    `values` in use that it may be, or None."""

    nesterov: bool
    alpha: float
    low: float
    high: float
    chi2: float
    rate: float
    used: float | None
    values: int


@dataclass(frozen=True)
class MomentumRead:
    """What the first intervals tell. `alpha`: the value to take, `fitted` with `low`, `high` what was read, 95 %.

    `sure`: it is one value in use, of one form, and `chance` of a warm-up giving it is small; else `alpha` is the
    assumption that contradicts the reading least. `missing`: updates' worth of decay that is missing; `until`: interval
    by whose end the rate has settled. `moving`: the learning rate moved smoothly, and what is missing was extrapolated.
    """

    alpha: float
    nesterov: bool
    fitted: float
    low: float
    high: float
    sure: bool
    missing: float
    chance: float
    until: int
    moving: bool = False


def read_momentum(
    total: Floats, low: Floats, high: Floats, updates: Floats, begins: float, nesterov: bool | None, usual: float
) -> MomentumRead | None:
    """The momentum that the first intervals tell; None where they tell nothing.

    `total`, `low`, `high` [I]: −ln(c'/c) of the clocks with its 95 % interval; `updates` [I] per interval, `begins`
    before the first. It needs the true start and a learning rate that then stays as it is over two intervals, or moves
    smoothly. `nesterov` None: not known. `usual`: the momentum that is assumed where a warm-up may have taken the rest.
    """
    for begun in beginnings(total, low, high, updates, begins):
        found = _judged(begun, nesterov, usual)
        if found is not None and found.sure and found.high ** begun.updates[: begun.until].sum() < FULL:
            return found
        if not begun.moving:
            return found
    return None


def _judged(begun: Beginning, nesterov: bool | None, usual: float) -> MomentumRead | None:
    """What one account of the beginning tells; None where neither form of momentum fits it."""
    forms = [_fit(begun, kind) for kind in ((False, True) if nesterov is None else (nesterov,))]
    known = [f for f in forms if f is not None]
    if not known:
        return None
    best = min(known, key=lambda f: f.chi2)
    likely = [f for f in known if f.chi2 < best.chi2 + TELLS]
    named = [f for f in likely if f.used is not None]
    chosen = named[0] if named else likely[0]  # heavy ball if both are open: its α shows at first order
    chance = _chance(chosen, float(begun.updates[0]))
    if likely[0].low == 0 and likely[0].high < PERHAPS_NONE:
        chosen, value, sure = likely[0], 0.0, likely[0].high < NONE_BELOW
    elif sure := bool(len(named) == 1 and chosen.values == 1 and chance <= UNLIKELY):
        value = float(chosen.used or 0.0)
    else:
        value = usual if usual <= chosen.high else chosen.used or chosen.alpha  # a warm-up may have withheld the rest
    gone = float(begun.total[: begun.until].sum() / chosen.rate)
    return MomentumRead(
        value, chosen.nesterov and value > 0, chosen.alpha, chosen.low, chosen.high, sure,
        float(begun.updates[: begun.until].sum()) - gone, chance, begun.until - 1, begun.moving,
    )  # fmt: skip


def _fit(begun: Beginning, nesterov: bool) -> Form | None:
    """α and the settled rate by least squares, α's interval by profile; None where the intervals do not fit.

    Searched on grids of ln(1−α) that close in; for each α the rate is scaled so that the totals are met best.
    """
    t, sd, n = begun.total, begun.sd, np.cumsum(begun.updates)

    def misfit(alphas: Floats) -> tuple[Floats, Floats, Floats]:
        """(χ², largest miss in standard deviations, settled rate) of each α."""
        rate = np.full((len(alphas), 1), t[-1] / begun.updates[-1])
        for _ in range(4):  # totals are nearly proportional to the rate
            model = np.diff(filling_loss(rate, alphas[:, None], np.r_[0.0, n], nesterov), axis=1)
            with np.errstate(invalid="ignore", over="ignore"):
                scale = (model * t / sd**2).sum(1) / (model**2 / sd**2).sum(1)
                rate = rate * scale[:, None]
        miss = (t - np.diff(filling_loss(rate, alphas[:, None], np.r_[0.0, n], nesterov), axis=1)) / sd
        miss = np.where(np.isfinite(miss), miss, 1e9)
        return (miss**2).sum(1), np.abs(miss).max(1), rate[:, 0]

    log = np.r_[0.0, -np.geomspace(1e-3, 9.0, 120)]  # of 1 − α, up to α = 0.9999
    centre = 0.0
    for _ in range(ROUNDS):
        best = int(np.argmin(misfit(-np.expm1(log))[0]))
        centre, least, most = (float(log[i]) for i in (best, min(best + 1, len(log) - 1), max(best - 1, 0)))
        log = np.unique(np.r_[np.linspace(least, most, 41), centre])[::-1]
    alpha = max(float(-np.expm1(centre)), 0.0)
    lowest, worst, rate = (float(v[0]) for v in misfit(np.array([alpha])))
    if worst > FITS:
        return None
    strain = max(1.0, lowest / max(len(t) - 2, 1))

    def excess(value: float) -> float:
        return float(misfit(np.array([value]))[0][0]) - lowest - Z95**2 * strain

    low, high = 0.0, 0.9999
    if alpha > 0 and excess(0.0) > 0:
        low = _root(excess, 0.0, alpha)
    if excess(high) > 0:
        high = _root(excess, alpha, high)
    room = max(MATCHES / Z95 * max(high - alpha, alpha - low), MATCHES_LEAST * (1 - alpha))
    near = [a for a in IN_USE if abs(a - alpha) <= room]
    used = min(near, key=lambda a: abs(a - alpha), default=None)
    return Form(nesterov, alpha, low, high, lowest, rate, used, len(near))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where the function changes sign between two ends."""
    from scipy.optimize import brentq

    return cast("float", brentq(function, low, high, xtol=1e-9))


def _chance(form: Form, updates: float) -> float:
    """Chance that a warm-up within the first interval withholds as much as the value in use does.

    What it withholds is taken as one of the halves between ½ and the interval's length, evenly in its logarithm (a
    linear warm-up over W updates withholds (W±1)/2), so that a narrower reading than ½ makes it no less probable.
    """
    if form.used is None:
        return 1.0
    held, low, high = (float(velocity_lag(a, form.nesterov)) for a in (form.used, form.low, form.high))
    return float(min(1.0, max(high - low, 0.5) / held / max(np.log(2 * updates), 1.0)))
