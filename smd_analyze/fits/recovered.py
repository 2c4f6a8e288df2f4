"""Quantity decay_from_data: ηλ of one update from measured angles and the slope of the norm, against the configured one.

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
COVERED = ("sgd", "sgdw", "adamw")
AS_SET, NOT_AS_SET = "as configured", "not as configured"
ALONE = "recovered; no configured value to compare with"


def decay_rows(c: Context) -> list[Row]:
    """The one row of decay_from_data [1/step, at the last update], where an angle was measured and momentum is known."""
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
    """(ηλ from the data, ηλ configured) around one measured update; NaN where they cannot be told."""
    r, steps = c.regime, np.asarray(c.series.steps, float)
    made = np.concatenate([[0.0], np.cumsum(r.updates)])
    i = int(np.clip(np.searchsorted(steps, angle["step_to"]), 1, len(steps) - 1))
    a = b = i
    while made[b] - made[a] < SPAN * r.smear and (a > 0 or b < len(steps) - 1):
        a, b = max(a - 1, 0), min(b + 1, len(steps) - 1)
    if made[b] - made[a] < SPAN * r.smear or r.changes[a:b].any():
        return np.nan, np.nan
    if any(not r.same(j, j + 1) for j in range(a, b - 1)):
        return np.nan, np.nan
    both = np.isfinite(c.series.vv[[a, b]]).all(axis=0)
    n = c.series.vv[[a, b]][:, both].sum(axis=1)
    if not (n > 0).all():
        return np.nan, np.nan
    slope, alpha = float(np.log(n[1] / n[0]) / (made[b] - made[a])), float(r.momentum[i - 1])
    square = (1 + alpha) * angle["angular_update"] ** 2
    x = 0.5 * (square - (1 - alpha) * slope) if r.optimizer == "sgd" else 0.5 * (square / (1 - alpha) - slope)
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
