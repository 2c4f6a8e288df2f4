"""Quantity decay_from_data: ηλ of one update from measured updates and the norm's slope, against the configured one.

SGD and heavy ball: ηλ = [(1+α)θ₁² − (1−α) d ln‖w‖²/dt]/2, exact in the mean for tangent gradients, on the way to
equilibrium as well as there (the angle that norms imply, Wan et al. 2021, arXiv:2006.08419, solved for the decay).
SGDW and AdamW with the saved direction d of an update (momentum buffer; m̂/(√v̂+ε)): from w' = (1−ηλ)w − ηd follows
ln‖w'‖²/‖w‖² = 2 ln(1−ηλ) − ln[1 + (2η w'·d + η²d²)/‖w'‖²], of one update and without any assumption; in the mean over
updates the left side is the norm's slope. With the angle alone it takes zero-mean gradients,
[(1+α)/(1−α)·θ₁² − d ln‖w‖²/dt]/2 (α is β₁ of AdamW), which training seldom has: trained networks are 5 to 20 % off, so
that value has no interval and no verdict. Nesterov, Lion and Muon need more than these numbers. Only a measured update
tells: the angle that norms imply contains ηλ already. Momentum must be known. Steps within 10/(1−α) of a change of the
learning rate are left out. Which updates count never depends on what they say.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from smd_analyze.fits import agreement, checks
from smd_analyze.fits.context import Context, Row
from smd_analyze.fits.measured import MEMORY, batches, measured_rows
from smd_analyze.fits.outcomes import Kind

SPAN = 10  # optimizer steps × (1 − α) over which the norm's slope is taken, at least
BEND = 0.05  # of ηλ: what the norm's curvature may add
COVERED = ("sgd", "sgdw", "adamw")
AS_SET, NOT_AS_SET = "as configured", "not as configured"
WIDE = "consistent with the configured value, and with no decay"
ALONE = "recovered; no configured value to compare with"
SOFT = "does not vanish beside the variance"  # of a batch norm's ε, in the notes of implied angles
SOFTENED = "not separable from what the batch norm's ε does to the norm"
ASSUMES = "rests on zero-mean gradients, which training seldom has: 5 to 20 % off"


class Found(NamedTuple):
    """ηλ around one measured update, the configured one, and what the slope's curvature may add (NaN if unknown)."""

    decay: float
    configured: float
    bend: float


class Slope(NamedTuple):
    """d ln‖w‖²/dt at an update, and by how much it differs between the intervals before and after (NaN if unknown)."""

    value: float
    bend: float


NOTHING = Found(np.nan, np.nan, np.nan)


def decay_rows(c: Context) -> list[Row]:
    """The one row of decay_from_data [1/step, last update], where an update was measured and momentum is known."""
    r = c.regime
    measured = sorted(measured_rows(c.angles), key=lambda a: a["step_to"])
    if not c.invariant or not measured or r.optimizer not in COVERED or (r.optimizer != "adamw" and r.nesterov):
        return []
    if c.frozen or c.held or not np.isfinite(r.momentum).any() or r.momentum_assumed:
        return []
    saved = measured[0]["method"] == "buffer" and c.series.uu is not None and r.optimizer != "sgd"
    soft = any(SOFT in (a["note"] or "") for a in c.angles)
    exact = saved or (r.optimizer == "sgd" and not soft)
    pairs = [(a, _decay_at(c, a, saved)) for a in measured]
    pairs = [(a, f) for a, f in pairs if np.isfinite(f.decay)]
    if not pairs:
        return []
    x, configured, bend = np.array([f for _, f in pairs]).T
    known = np.isfinite(configured).all() and bool((configured > 0).all())
    straight = bend <= BEND * (configured if known else x.mean())
    if not straight.any():
        return []
    x, configured = x[straight], configured[straight]
    used = [a for (a, _), ok in zip(pairs, straight, strict=True) if ok]
    last = float(configured[-1]) if known else 1.0
    value, low, high, count = _mean(x / configured if known else x, batches(used, MEMORY * r.smear))
    kind = "saved updates" if saved else f"{used[0]['method']} angles"
    method = f"{kind} at {len(used)} steps and the norm's slope"
    if exact:
        method += f", t interval over {count} batches"
        said = _said(low, high, known)
    elif soft and r.optimizer == "sgd":  # gradients are not tangent: 10 % of the decay in small networks
        low = high = np.nan
        said = {"outcome": SOFTENED, "kind": str(Kind.NOT_APPLICABLE), "advice": ""}
    else:
        low = high = np.nan
        method += "; zero-mean gradients assumed: no interval"
        said = {"outcome": ASSUMES, "kind": str(Kind.ESTIMATED), "advice": "save the optimizer state with the weights"}
    told = checks.told(c, checks.small_decay, checks.momentum_number, checks.resolution)
    return [
        c.row(
            "decay_from_data", value * last, low * last, high * last, level=0.95 if np.isfinite(low) else None,
            method=method, checks=told, **said,
        )
    ]  # fmt: skip


def _said(low: float, high: float, known: bool) -> dict[str, str]:
    """Outcome, kind and advice of an interval of ηλ (over the configured one if that is `known`)."""
    if not np.isfinite(low):
        return {"outcome": agreement.FEW, "kind": str(Kind.TOO_FEW), "advice": ""}
    outcome = ALONE
    if known:
        outcome = NOT_AS_SET if not low <= 1 <= high else AS_SET if low > 0 else WIDE
    advice = "check learning rate × weight decay and momentum" if outcome == NOT_AS_SET else ""
    return {"outcome": outcome, "kind": str(Kind.TOO_FEW if outcome == WIDE else Kind.ESTIMATED), "advice": advice}


def _decay_at(c: Context, angle: Row, saved: bool) -> Found:
    """ηλ around one measured update, from its saved direction (`saved`) or its angle."""
    r, steps = c.regime, np.asarray(c.series.steps, float)
    middle = 0.5 * (angle["step_from"] + angle["step_to"])
    i = int(np.searchsorted(steps, middle))  # the update lies in interval i − 1
    if not 0 < i < len(steps):
        return NOTHING
    at = float(np.interp(middle, steps, np.concatenate([[0.0], np.cumsum(r.updates)])))
    slope = _slope_at(c, _log_norms(c, saved), i, at)
    alpha = float(r.momentum[i - 1])
    square, damp = angle["angular_update"] ** 2, 1.0
    if saved:
        gain = _gain(c, i)
    elif r.optimizer == "sgd":
        gain, damp = (1 + alpha) * square, 1 - alpha
    else:
        gain = (1 + alpha) / (1 - alpha) * square
    with np.errstate(divide="ignore", invalid="ignore"):
        configured = float(r.decay[i - 1] / r.updates[i - 1] / r.amplification[i - 1])
    return Found(0.5 * (gain - damp * slope.value), configured, damp * slope.bend / 8)


def _gain(c: Context, i: int) -> float:
    """−ln[1 + (2η w·d + η²d²)/‖w‖²] of the update that made checkpoint i: what it did to ln‖w‖² besides decay."""
    s, eta = c.series, float(c.regime.rate_last[i - 1])
    if s.uu is None or s.wu is None or c.regime.uncertain[i - 1]:
        return np.nan
    known = np.isfinite(s.vv[i])
    n, along, length = (float(x[i][known].sum()) for x in (s.vv, s.wu, s.uu))
    inside = 1 + (2 * eta * along + eta**2 * length) / n if n > 0 else np.nan
    return float(-np.log(inside)) if inside > 0 else np.nan


def _log_norms(c: Context, saved: bool) -> np.ndarray:
    """ln‖w‖² [T] as the other side of the equation has it: of the whole layer where sums over its units stand there
    (`saved`), else the mean over the units, as angles are. NaN where a unit is missing.
    """
    vv = c.series.vv[:, np.isfinite(c.series.vv).any(axis=0)]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(vv.sum(axis=1)) if saved else np.log(vv[:, (vv > 0).any(axis=0)]).mean(axis=1)
    return np.where(np.isfinite(logs), logs, np.nan)


def _slope_at(c: Context, logs: np.ndarray, i: int, at: float) -> Slope:
    """The slope of `logs` [T] `at` an update of interval i − 1, counted in updates; NaN where η changes.

    That of the intervals before and after it, interpolated between their middles.
    """
    r = c.regime
    made = np.concatenate([[0.0], np.cumsum(r.updates)])
    left = [j for j in range(i) if at - made[j] >= SPAN * r.smear]
    right = [j for j in range(i, len(made)) if made[j] - at >= SPAN * r.smear]
    if not left or not right:
        return Slope(np.nan, np.nan)
    a, b = left[-1], right[0]
    if r.changes[a:b].any() or any(not r.same(j, j + 1) for j in range(a, b - 1)):
        return Slope(np.nan, np.nan)
    centre = i if made[i] - at <= at - made[i - 1] else i - 1
    if not a < centre < b:  # no checkpoint near the update: one slope has to do
        centre = a
    whole = float((logs[b] - logs[a]) / (made[b] - made[a]))
    if centre == a:
        return Slope(whole, abs(whole))
    before, after = ((logs[y] - logs[x]) / (made[y] - made[x]) for x, y in ((a, centre), (centre, b)))
    middles = 0.5 * (made[a] + made[centre]), 0.5 * (made[centre] + made[b])
    return Slope(float(np.interp(at, middles, (before, after))), float(abs(before - after)))


def _mean(values: np.ndarray, batch: np.ndarray) -> tuple[float, float, float, int]:
    """Mean of the batches' means with its 95 % t interval (NaN for fewer than agreement.BATCHES), and their number."""
    from scipy.special import stdtrit  # heavy

    means = np.array([values[batch == b].mean() for b in np.unique(batch)])
    n, value = len(means), float(means.mean())
    if n < agreement.BATCHES:
        return value, np.nan, np.nan, n
    half = float(stdtrit(n - 1, 0.975) * means.std(ddof=1) / np.sqrt(n))
    return value, value - half, value + half, n
