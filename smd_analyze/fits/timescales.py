"""Quantities intrinsic_learning_rate, steps_to_equilibrium and norm_fluctuation: what theory alone says of a group."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np

from smd_analyze.fits.context import Context, Row
from smd_analyze.fits.maps import interval_maps
from smd_analyze.fits.outcomes import Kind
from smd_analyze.fits.regime import FOURTH_POWER, Regime
from smd_analyze.fits.stationary import standing, why_not

Said = dict[str, Any]
TOLERANCE = 0.1  # of ‖w‖: what counts as having arrived
RECENT = 5  # intervals over which a unit's gradient scale is taken: those of the equilibrium index
IF_STAYS = "if learning rate and gradients stay as they are"
UNCERTAIN: Said = {
    "outcome": "learning rate of the last update unknown: it changed since the checkpoint before",
    "kind": str(Kind.SETTINGS_MISSING), "advice": "--settings run.toml with a [schedule] table",
}  # fmt: skip
MOVES: Said = {
    "outcome": "the balance moves with the learning rate", "kind": str(Kind.RELAXING),
    "advice": "see the stages of training (--explain)",
}  # fmt: skip


def timescale_rows(c: Context) -> list[Row]:
    """The three quantities; the last two of scale-invariant groups only."""
    return [_intrinsic(c), *([_time_left(c), _fluctuation(c)] if c.invariant else [])]


def last_decay(r: Regime) -> float:
    """ηλ of the last update, before momentum amplifies it [1/step]; NaN if unknown."""
    if not len(r.decay) or r.uncertain[-1]:
        return np.nan
    if r.changes[-1]:
        return float(r.rate_last[-1] * r.weight_decay[-1])
    return float(r.decay[-1] / r.updates[-1] / r.amplification[-1])


def _intrinsic(c: Context) -> Row:
    """ηλ: what alone sets the balance, and after which time (Li, Lyu & Arora 2020, arXiv:2010.02916)."""
    name, r = "intrinsic_learning_rate", c.regime
    value = last_decay(r)
    if np.isfinite(value):
        method = "learning rate × weight decay of the last update" + ("" if r.rate_known else ", from decay clocks")
        method += ", momentum assumed" if r.momentum_assumed and not r.rate_known else ""
        return c.row(name, value, method=method, kind=str(Kind.ESTIMATED))
    if len(r.uncertain) and r.uncertain[-1]:
        return c.row(name, **UNCERTAIN)
    missing: Said = {
        "outcome": "learning rate or weight decay unknown",
        "kind": str(Kind.SETTINGS_MISSING),
        "advice": "",
    }
    return _reason(c, name) if r.gap else c.row(name, **missing)


def _time_left(c: Context) -> Row:
    r"""Steps (recorded ones) until ‖w‖ is within TOLERANCE of its equilibrium, if the learning rate stays.

    $$ t = \frac1r \ln\frac{|s^p - 1|}{\varepsilon},\quad s = \frac{\lVert w\rVert}{\lVert w\rVert^*},\
       \varepsilon = (1+\tau)^p - 1 \text{ from above, } 1-(1-\tau)^p \text{ from below} $$

    p and the rate r are those of the linear variable ‖w‖^p (the half-lives of `predictions`), ‖w‖* is its equilibrium
    norm. Where each unit has a scale of its own it is the median over the units, with p10 and p90. A norm that passes
    the equilibrium index's test has arrived, whatever level was predicted; one that does not is never said to stand.
    """
    name, r = "steps_to_equilibrium", c.regime
    if len(r.changes) and r.changes[-1] and not r.gap and not r.no_decay:
        return c.row(name, **MOVES)
    if r.gap or r.no_decay or c.present < 2 or c.frozen:
        return _reason(c, name)
    said = standing(c)
    if c.since is not None:
        method = f"stationary since step {c.series.steps[c.since]:g}, by its equilibrium index"
        return c.row(name, 0.0, method=method, outcome=said["outcome"], kind=str(Kind.SETTLED))
    rate = _last_rate(c)
    units = _units(c, rate) if c.group.granularity == "unit" else None
    return _layer(c, rate, said) if units is None else _median(c, units, rate, said)


def _layer(c: Context, rate: float, said: Said) -> Row:
    """The time of the whole layer's norm, with the ends that its level's interval gives (which claim no coverage)."""
    name, last = "steps_to_equilibrium", c.predicted[-1] if c.predicted else {}
    level, norm = last.get("equilibrium_norm"), float(np.sqrt(np.nansum(c.series.vv[-1])))
    if not level or not norm > 0 or not rate > 0:
        return c.row(name, **_unknown(c))
    power = c.regime.power
    ends = [x for end in ("low", "high") if (x := last.get(f"equilibrium_norm_{end}"))]
    times = [float(_steps(norm / x, power, rate)) for x in (level, *ends)]
    between = len(ends) == 2 and min(ends) < norm < max(ends)  # the norm may be right there
    interval = (0.0 if between else min(times), max(times)) if len(ends) == 2 else (None, None)
    basis = "predicted" if last.get("norm_basis") == "theory" else "extrapolated"
    method = f"theory's rate {rate:.3g} per step, from ‖w‖ = {norm / level:.3g} times its {basis} equilibrium, to 10 %"
    outcome, kind = IF_STAYS, Kind.RELAXING
    if times[0] == 0:
        outcome, kind = f"norm within 10 % of equilibrium, {said['outcome']}", said["kind"]
    whole = "of the whole layer's norm, not of each unit's; " if c.group.granularity == "unit" else ""
    return c.row(name, times[0], *interval, level=None, method=method, outcome=whole + outcome, kind=str(kind))


def _median(c: Context, times: np.ndarray, rate: float, said: Said) -> Row:
    """The median over the units' times [units]."""
    p10, value, p90 = np.percentile(times, [10, 50, 90])
    there = float(np.mean(times == 0))
    method = (
        f"median over {len(times)} units: theory's rate {rate:.3g} per step, from each unit's ‖w‖ to 10 % of the "
        f"equilibrium of its gradient scale over the last {RECENT} intervals"
    )
    outcome = f"{100 * there:.0f} % of the units within 10 % of equilibrium, {said['outcome']}"
    kind = said["kind"] if value == 0 else str(Kind.RELAXING)
    if value > 0:
        outcome = f"{100 * there:.0f} % of the units within 10 % of equilibrium; steps {IF_STAYS}"
    return c.row("steps_to_equilibrium", value, p10=p10, p90=p90, method=method, outcome=outcome, kind=kind)


def _units(c: Context, rate: float) -> np.ndarray | None:
    """Time of each unit from its own equilibrium: that of its gradient's scale in the RECENT intervals (as the
    equilibrium index has them); None where that cannot be told.
    """
    found, r = c.scale, c.regime
    if found is None or not rate > 0 or found.intervals < RECENT:
        return None
    maps = interval_maps(r, c.edges)
    shares = r.updates[c.edges[-RECENT - 1] :].sum()
    weight = np.array([r.updates[a:b].sum() for a, b in zip(c.edges, c.edges[1:], strict=False)])[-RECENT:] / shares
    scale = (weight[:, None] * found.picture[-RECENT:]).sum(axis=0)
    last = c.series.vv[c.edges[-1]]
    y = last[(c.series.vv[c.edges] > 0).all(axis=0)] ** (r.power // 2)
    rest = scale * maps.source[-1] / (1 - maps.phi[-1])
    if not (1 - maps.phi[-1]) > 0 or not np.isfinite(rest).all():
        return None
    floor = 1e-6 * y  # a unit that shrinks as fast as decay alone lets it: its equilibrium is below all that is seen
    return _steps((y / np.maximum(rest, floor)) ** (1 / r.power), r.power, rate)


def _reason(c: Context, name: str) -> Row:
    """A row without a number, for the reason why there is no equilibrium index either."""
    said: Said = why_not(c)
    return c.row(name, **said)


def _unknown(c: Context) -> Said:
    """Why there is no time to equilibrium where the schedule is known."""
    if c.regime.momentum_number > 1 / 16:
        return {"outcome": "the norm oscillates: no single rate", "kind": str(Kind.OSCILLATING), "advice": ""}
    words = "no equilibrium norm is predicted"
    return {"outcome": words, "kind": str(Kind.TOO_FEW), "advice": "save the optimizer state, or more checkpoints"}


def _last_rate(c: Context) -> float:
    """Relaxation rate of the last interval per recorded step, from the half-lives that theory counts."""
    if len(c.predicted) < 2:
        return np.nan
    a, b = c.predicted[-2:]
    if a["half_lives"] is None or b["half_lives"] is None or b["step"] == a["step"]:
        return np.nan
    return (b["half_lives"] - a["half_lives"]) * log(2) / (b["step"] - a["step"])


def _steps(start: float | np.ndarray, power: int, rate: float) -> np.ndarray:
    """Steps from `start` = ‖w‖/‖w‖* to within TOLERANCE at `rate` per step; 0 if it is there."""
    away = np.asarray(start, float) ** power - 1
    near = np.where(away > 0, (1 + TOLERANCE) ** power - 1, 1 - (1 - TOLERANCE) ** power)
    return np.log(np.maximum(np.abs(away) / near, 1.0)) / rate


def _fluctuation(c: Context) -> Row:
    r"""Relative standard deviation of one unit's ‖w‖ at equilibrium, ½·CV·√(x_e/2), at CV = 1.

    CV is that of the unit gradient's square: √(2/(d−1)) for Gaussian gradients of d elements, 1.0–1.4 in measured
    neurons. Source: stationary variance of the linear equation of ‖w‖⁴ (SGD family).
    """
    name, r = "norm_fluctuation", c.regime
    if r.gap or r.no_decay:
        return _reason(c, name)
    if r.optimizer not in FOURTH_POWER:
        words = f"derived for SGD: under {r.optimizer} it is √(2/d) at most, d elements in a unit"
        return c.row(name, outcome=words, kind=str(Kind.NOT_APPLICABLE))
    decay = last_decay(r) * (r.amplification[-1] if len(r.decay) else np.nan)
    if not np.isfinite(decay):
        return c.row(name, **UNCERTAIN)
    method = "½·CV·√(x_e/2) of one unit's ‖w‖, x_e decay per step with momentum, at CV = 1 (gradient's square)"
    return c.row(name, 0.5 * np.sqrt(decay / 2), method=method, kind=str(Kind.ESTIMATED))
