"""Which usual schedule a sequence of rates follows: constant, steps, warm-up, cosine, linear, one-cycle, restarts …

Every form is fitted to the means over the intervals; it is named only if it runs through all of them within their
uncertainty, and only if no simpler form does nearly as well. Otherwise "no simple form" is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from smd_analyze.schedule.forms import FORMS, Form
from smd_analyze.schedule.stretches import ALIKE, pooled, stretches

Array = np.ndarray
Value = tuple[float, float, float]
Z95 = 1.96
TOLERANCE = 1e-3
"""Relative distance that a form may keep: schedules act in steps of a batch or an epoch, forms are smooth."""
FARTHEST = 4.0  # standard deviations that any one reading may lie off
CLEAR = 6.0  # difference of the Bayesian information criterion: strong evidence (Kass and Raftery 1995)
MOST = 240  # intervals that are fitted; more are joined
STEPS = "step drops"
CONSTANT = "constant"
NONE = "no simple form"
MANY = 5  # levels from which on a smooth form is looked for behind the steps
SPARE = 3  # intervals that a form of three parameters or more must leave over; simpler ones two
NEAR = 1e4  # χ² per interval, of 0.1 %, from which on a form is not even near: stairs could not mend that
TIMES = ("end", "warm_up", "scale", "period")


@dataclass(frozen=True)
class Shape:
    """The form that the rates follow. `kind` is a name of forms.FORMS, "step drops", "no simple form", or "" (too few).

    `parameters`: name → (value, low, high), 95 %; times are in steps, `peak` in the unit of the rates. `others`: forms
    that fit as well. `points`: how many intervals it rests on.
    """

    kind: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    points: int = 0


@dataclass(frozen=True)
class _Fit:
    form: Form
    stairs: bool
    p: Array
    score: float
    fits: bool


def recognise(start: Array, stop: Array, rate: Array, sd: Array) -> Shape:
    """The form of `rate` [n], the mean over updates start+1 … stop of each interval, with standard deviations `sd`.

    Intervals ascend and may leave gaps; `start` 0 is the beginning of training, where a warm-up would begin.
    """
    n = len(rate)
    if n < 3 or not np.any(rate > 0):
        return Shape("", points=n)
    found = stretches(rate, sd)
    if len(found) == 1:
        mean, error = pooled(rate, sd, stop - start)
        return Shape(CONSTANT, {"peak": _value(mean, error)}, points=n)
    if not _is_stepped(found, n):
        return _smooth(start, stop, rate, sd) or Shape(NONE, points=n)
    if len(found) > MANY:  # a smooth schedule that is set once an epoch, between checkpoints that are closer
        each = [pooled(rate[i:j], sd[i:j], (stop - start)[i:j]) for i, j in found]
        first, last = (np.array(ends) for ends in zip(*found, strict=True))
        stairs = _smooth(start[first], stop[last - 1], *np.array(each).T)
        return Shape(STEPS, points=n) if stairs is None else replace(stairs, points=n)
    if found[0] == (0, 1) and rate[0] < rate[1]:
        rising = _smooth(start, stop, rate, sd)
        return Shape(STEPS, points=n) if rising is None else rising
    return Shape(STEPS, points=n)


def _is_stepped(found: list[tuple[int, int]], n: int) -> bool:
    """Whether constant stretches of two intervals and more, with at most one between them, are all there is."""
    long = [b - a >= 2 for a, b in found]
    inner = [long[i] or (long[i - 1] and long[i + 1]) for i in range(1, len(long) - 1)]
    levels = sum(long) + (not long[0]) + (not long[-1])
    return any(long) and all(inner) and n >= 2 * levels + 1


def _smooth(start: Array, stop: Array, rate: Array, sd: Array) -> Shape | None:
    points = len(rate)
    start, stop, rate, sd = _thinned(start, stop, rate, sd)
    span, height = float(stop[-1]), float(np.median(rate[rate > 0]))
    a, b, r = start / span, stop / span, rate / height
    wide = np.hypot(sd / height, TOLERANCE * np.abs(r))
    even = bool(np.all(stop - start == stop[0] - start[0]) and np.all(start[1:] == stop[:-1]))
    fitting: list[_Fit] = []
    for form in FORMS:
        count = len(form.parameters)
        simple = min((len(t.form.parameters) for t in fitting), default=count)
        if points < count + (SPARE if count > 2 else 2) or count > simple + 1:
            continue
        for stairs in (False, True):
            fit = _fitted(form, stairs, a, b, r, wide, 1 / span)
            if fit is not None and fit.fits:
                fitting.append(fit)
            if fit is None or fit.fits or not even or fit.score > NEAR * len(r):
                break
    if not fitting:
        return None
    least = min(t.score for t in fitting)
    near = [t for t in fitting if t.score <= least + CLEAR]
    chosen = min(near, key=lambda t: (len(t.form.parameters), t.score))
    values = _values(chosen, a, b, r, sd / height, wide, 1 / span, span, height)
    same = len(chosen.form.parameters)
    others = dict.fromkeys(
        t.form.name for t in near if t.form.name != chosen.form.name and len(t.form.parameters) <= same
    )
    return Shape(chosen.form.name, values, tuple(others), points)


def _thinned(start: Array, stop: Array, rate: Array, sd: Array) -> tuple[Array, Array, Array, Array]:
    """Neighbours joined two by two until there are at most MOST intervals; the mean of a pair is weighted by steps."""
    while len(rate) > MOST:
        even = len(rate) // 2 * 2
        k = (stop - start)[:even].reshape(-1, 2)
        share = k / k.sum(axis=1, keepdims=True)
        whole = start[1:even:2] == stop[0:even:2]
        if not whole.all():
            keep = np.arange(0, len(rate), 2)
            return start[keep], stop[keep], rate[keep], sd[keep]
        rate = (rate[:even].reshape(-1, 2) * share).sum(axis=1)
        sd = np.sqrt(((sd[:even].reshape(-1, 2) * share) ** 2).sum(axis=1))
        start, stop = start[0:even:2], stop[1:even:2]
    return start, stop, rate, sd


def _mean(form: Form, p: Array, stairs: bool, a: Array, b: Array, update: float) -> Array:
    """Mean rate over the updates of each interval; `stairs`: the rate of its first update holds throughout.

    The update after x others reads the form at x, so that the sum over an interval is its area half an update earlier.
    """
    half = 0.5 * update
    until = a + update if stairs else b
    return (form.area(until - half, p, half) - form.area(a - half, p, half)) / (until - a)


def _fitted(form: Form, stairs: bool, a: Array, b: Array, r: Array, sd: Array, update: float) -> _Fit | None:
    """Weighted least squares from the two best of several starts; None where none of them is finite."""
    from scipy.stats import chi2

    low, high = _bounds(form, update)

    def miss(p: Array) -> Array:
        return (_mean(form, p, stairs, a, b, update) - r) / sd

    with np.errstate(all="ignore"):
        begins = [np.clip(s, low, high) for s in _starts(form, a, b, r)]
        ranked = sorted((float(np.sum(miss(s) ** 2)), i) for i, s in enumerate(begins))
        ranked = [item for item in ranked if np.isfinite(item[0])]
        if not ranked:
            return None
        done = [_polished(miss, begins[i], low, high, form) for _, i in ranked[:2]]
    best = min(done, key=lambda d: d.cost)
    square, free = 2 * float(best.cost), len(r) - len(best.x)
    close = np.max(np.abs(best.fun)) <= FARTHEST and square <= chi2.isf(1e-3, free)
    fits = bool(close and _is_seen(form, best.x, float(np.max(b - a))))
    return _Fit(form, stairs, best.x, square + len(best.x) * np.log(len(r)), fits)


def _is_seen(form: Form, p: Array, widest: float) -> bool:
    """Whether a fall lasts for two intervals at least: within one, any form would pass through a jump."""
    named = dict(zip(form.parameters, p, strict=True))
    fall = min(named.get(name, np.inf) for name in ("end", "period", "scale"))
    fall -= named.get("warm_up", 0.0) if "end" in named else 0.0
    rises = form.name != "one-cycle" or named["first"] < 0.9
    return bool(fall >= 2 * widest and rises)


def _polished(miss: Callable[[Array], Array], begin: Array, low: Array, high: Array, form: Form) -> Any:
    """Least squares; for restarts over the heights alone first: they have kinks, which a rough height would jump."""
    from scipy.optimize import least_squares

    room = 1e-9 * (high - low)
    p = np.clip(begin, low + room, high - room)
    if "period" in form.parameters:
        heights = np.array([name not in TIMES for name in form.parameters])

        def partly(q: Array) -> Array:
            whole = p.copy()
            whole[heights] = q
            return miss(whole)

        first = least_squares(partly, p[heights], bounds=(low[heights], high[heights]), x_scale="jac", max_nfev=50)
        p[heights] = np.clip(first.x, (low + room)[heights], (high - room)[heights])
    return least_squares(miss, p, bounds=(low, high), x_scale="jac", max_nfev=60)


BOUNDS = {
    "peak": (0.0, 1e6), "end": (1e-3, 30.0), "floor": (0.0, 1.0), "warm_up": (1e-6, 1.0), "first": (0.0, 1.0),
    "scale": (1e-3, 1e3), "period": (1e-2, 2.0), "power": (0.3, 6.0),
}  # fmt: skip


def _bounds(form: Form, update: float) -> tuple[Array, Array]:
    """Times are in units of the last step; a negative scale or an end before the last step would be no schedule."""
    low, high = (np.array([BOUNDS[name][i] for name in form.parameters]) for i in (0, 1))
    if "warm_up" in form.parameters:
        low[form.parameters.index("warm_up")] = max(update, 1e-6)
    return low, high


def _starts(form: Form, a: Array, b: Array, r: Array) -> Iterator[Array]:
    """Parameters to begin from: tops and ends where the readings suggest them."""
    top = float(np.max(r))
    crest = float(b[int(np.argmax(r))])
    jumps = b[:-1][np.diff(r) > 0.3 * top]
    for turn in (crest, 0.5 * float(b[0]), 0.05, 0.2):
        for end in (1.0, 1.3, 2.0, 4.0):
            for period in (*(np.diff(np.r_[0.0, jumps])[:2]), 0.5, 0.25):
                for power in (0.9, 2.0):
                    guess = {
                        "peak": top * 1.02, "end": end, "floor": 0.02, "warm_up": turn, "first": 0.05,
                        "scale": end / 3, "period": period, "power": power,
                    }  # fmt: skip
                    yield np.array([guess[name] for name in form.parameters])
                    if "power" not in form.parameters:
                        break
                if "period" not in form.parameters:
                    break
            if "end" not in form.parameters and "scale" not in form.parameters:
                break
        if "warm_up" not in form.parameters:
            break


def _values(
    fit: _Fit, a: Array, b: Array, r: Array, sd: Array, wide: Array, update: float, span: float, height: float
) -> dict[str, Value]:
    """Parameters with 95 % intervals, from the readings' own uncertainty where the form fits to that, in real units."""
    from scipy.optimize import least_squares
    from scipy.stats import t as student

    low, high = _bounds(fit.form, update)
    tight = np.hypot(sd, ALIKE * np.abs(r))
    weights = tight

    def miss(p: Array) -> Array:
        return (_mean(fit.form, p, fit.stairs, a, b, update) - r) / weights

    room = 1e-9 * (high - low)
    begin = np.clip(fit.p, low + room, high - room)
    done = least_squares(miss, begin, bounds=(low, high), x_scale="jac", max_nfev=200)
    free = len(r) - len(begin)
    if 2 * done.cost > 3 * free:
        weights = wide
        done = least_squares(miss, begin, bounds=(low, high), x_scale="jac", max_nfev=200)
    strain = max(1.0, 2 * float(done.cost) / free)
    error = np.sqrt(np.maximum(np.diag(np.linalg.pinv(done.jac.T @ done.jac)), 0.0) * strain)
    wide_by = float(student.ppf(0.975, free)) / Z95
    values = {}
    for name, value, sigma, least, most in zip(fit.form.parameters, done.x, error * wide_by, low, high, strict=True):
        unit = height if name == "peak" else span if name in TIMES else 1.0
        ends = max(value - Z95 * sigma, least), min(value + Z95 * sigma, most)
        values[name] = (float(value * unit), float(ends[0] * unit), float(ends[1] * unit))
    return values


def _value(mean: float, error: float) -> Value:
    return mean, mean - Z95 * error, mean + Z95 * error
