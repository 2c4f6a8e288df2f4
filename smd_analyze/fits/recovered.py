"""Quantity decay_from_data: ηλ of one update from measured angles and the norm's slope, against the configured one.

SGD and heavy ball: ηλ = [(1+α)θ₁² − (1−α) d ln‖w‖²/dt]/2, exact in the mean for tangent gradients, on the way to
equilibrium as well as there (the angle that norms imply, Wan et al. 2021, arXiv:2006.08419, solved for the decay).
SGDW and AdamW: [(1+α)/(1−α)·θ₁² − d ln‖w‖²/dt]/2, for zero-mean gradients (α is β₁ of AdamW). Nesterov, Lion and Muon
need more than these two numbers. Only an angle that was measured tells: that implied by the norms contains ηλ already.
Momentum must be known. Steps within 10/(1−α) of a change of the learning rate are left out.
"""

from __future__ import annotations

import numpy as np

from smd_analyze.fits import agreement, checks
from smd_analyze.fits.context import Context, Row
from smd_analyze.fits.measured import MEMORY, batches, measured_rows
from smd_analyze.fits.outcomes import Kind

SPAN = 10  # optimizer steps × (1 − α) over which the norm's slope is taken, at least
BEND = 0.05  # of ηλ: what the norm's curvature may add
COVERED = ("sgd", "sgdw", "adamw")
AS_SET, NOT_AS_SET = "as configured", "not as configured"
ALONE = "recovered; no configured value to compare with"


def decay_rows(c: Context) -> list[Row]:
    """The one row of decay_from_data [1/step, last update], where an angle was measured and momentum is known."""
    r = c.regime
    measured = sorted(measured_rows(c.angles), key=lambda a: a["step_to"])
    if not c.invariant or not measured or r.optimizer not in COVERED or (r.optimizer != "adamw" and r.nesterov):
        return []
    if c.frozen or c.held or not np.isfinite(r.momentum).any() or r.momentum_assumed:
        return []
    found = [(a, *_decay_at(c, a)) for a in measured]
    used = [(a, x, configured) for a, x, configured in found if np.isfinite(x)]
    if not used:
        return []
    x, configured = (np.array([u[i] for u in used]) for i in (1, 2))
    known = np.isfinite(configured).all() and bool((configured > 0).all())
    last = float(configured[-1]) if known else 1.0
    value, low, high, count = _mean(x / configured if known else x, batches([u[0] for u in used], MEMORY * r.smear))
    method = (
        f"{used[0][0]['method']} angles of {len(used)} updates and the norm's slope, t interval over {count} batches"
    )
    if r.optimizer != "sgd":
        method += "; zero-mean gradients assumed"
    outcome, kind = ALONE, Kind.ESTIMATED
    if not np.isfinite(low):
        outcome, kind = agreement.FEW, Kind.TOO_FEW
    elif known:
        outcome = AS_SET if low <= 1 <= high else NOT_AS_SET
    advice = "check learning rate × weight decay and momentum" if outcome == NOT_AS_SET else ""
    told = checks.told(c, checks.small_decay, checks.momentum_number, checks.resolution)
    return [
        c.row(
            "decay_from_data", value * last, low * last, high * last, method=method, outcome=outcome, kind=str(kind),
            advice=advice, checks=told,
        )
    ]  # fmt: skip


def _decay_at(c: Context, angle: Row) -> tuple[float, float]:
    """(ηλ from the data, ηλ configured) around one measured update; NaN where they cannot be told.

    The slope at the update is that of the intervals before and after it, interpolated between their middles: where it
    bends by more than BEND of the result, the update tells nothing.
    """
    r, steps = c.regime, np.asarray(c.series.steps, float)
    made = np.concatenate([[0.0], np.cumsum(r.updates)])
    middle = 0.5 * (angle["step_from"] + angle["step_to"])
    i = int(np.searchsorted(steps, middle))  # the update lies in interval i − 1
    if not 0 < i < len(steps):
        return np.nan, np.nan
    at = float(np.interp(middle, steps, made))
    left = [j for j in range(i) if at - made[j] >= SPAN * r.smear]
    right = [j for j in range(i, len(steps)) if made[j] - at >= SPAN * r.smear]
    if not left or not right:
        return np.nan, np.nan
    a, b = left[-1], right[0]
    if r.changes[a:b].any() or any(not r.same(j, j + 1) for j in range(a, b - 1)):
        return np.nan, np.nan
    centre = i if made[i] - at <= at - made[i - 1] else i - 1
    if not a < centre < b:  # no checkpoint near the update: one slope has to do
        centre = a
    n = [float(np.nansum(c.series.vv[j])) for j in (a, centre, b)]
    if not min(n) > 0 or not (np.isfinite(c.series.vv[a]) == np.isfinite(c.series.vv[b])).all():
        return np.nan, np.nan
    alpha = float(r.momentum[i - 1])
    whole = np.log(n[2] / n[0]) / (made[b] - made[a])
    slope, bend = whole, np.inf if centre == a else 0.0
    if centre != a:
        before, after = (
            np.log(n[k + 1] / n[k]) / (made[y] - made[x]) for k, (x, y) in enumerate(((a, centre), (centre, b)))
        )
        slope = float(np.interp(at, (0.5 * (made[a] + made[centre]), 0.5 * (made[centre] + made[b])), (before, after)))
        bend = abs(before - after)
    square = (1 + alpha) * angle["angular_update"] ** 2
    damp = 1 - alpha if r.optimizer == "sgd" else 1.0
    x = 0.5 * ((square if r.optimizer == "sgd" else square / (1 - alpha)) - damp * slope)
    bend = abs(whole) if not np.isfinite(bend) else bend
    if not x > 0 or damp * bend / 8 > BEND * x:
        return np.nan, np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        return x, float(r.decay[i - 1] / r.updates[i - 1] / r.amplification[i - 1])


def _mean(values: np.ndarray, batch: np.ndarray) -> tuple[float, float, float, int]:
    """Mean of the batches' means with its 95 % t interval (NaN for fewer than agreement.BATCHES), and their number."""
    from scipy.special import stdtrit  # heavy

    means = np.array([values[batch == b].mean() for b in np.unique(batch)])
    n, value = len(means), float(means.mean())
    if n < agreement.BATCHES:
        return value, np.nan, np.nan, n
    half = float(stdtrit(n - 1, 0.975) * means.std(ddof=1) / np.sqrt(n))
    return value, value - half, value + half, n
