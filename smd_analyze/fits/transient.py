r"""Quantity angle_after_change: measured angular updates in the transient of a learning-rate change, over theory's.

$$ \frac{\theta_1(t)}{\theta^*} = \frac{1}{\sqrt{1+(q-1)\,2^{-h(t)}}},\qquad q = \frac{\eta^2/x}{\eta'^2/x'} $$

from equilibrium before the change; h half-lives passed since, x decay per step (ηλ, so q = k for η → η/k). A dip for
q > 1. Source: Wan et al. 2021, arXiv:2006.08419. AdamW up to 12 % off (v̂ lags behind), so its interval is not held
against theory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from smd_analyze.fits import agreement
from smd_analyze.fits.context import Context, Row
from smd_analyze.fits.measured import KINDS, MEMORY, measured_rows
from smd_analyze.fits.outcomes import Kind
from smd_analyze.fits.regime import SAME, Regime

JUMP = 1.5  # factor of the level that counts as a change
OVER = 0.05  # the transient ends where theory is within this of the new equilibrium
DIFFERS = "differs from theory, or the norm was not in balance before, or the gradients' scale changed"
BALANCED = 2.0  # half-lives at the old learning rate from which the norm is taken to have been in balance


@dataclass(frozen=True)
class Change:
    """A change of the learning rate between constant intervals: its step, factor of η, q, and the first step after.

    `first`, `last`: between which steps it lies; `step` itself where it is located.
    """

    step: float
    factor: float
    ratio: float
    until: float
    first: float
    last: float


def transient_rows(c: Context) -> list[Row]:
    """A row for each change in whose transient there are independent measurements; none elsewhere."""
    if not c.invariant or c.regime.gap or c.regime.no_decay or not c.regime.rate_known:
        return []
    measured = sorted(measured_rows(c.angles), key=lambda a: a["step_to"])
    theory = {p["step"]: p for p in c.predicted}
    rows = []
    for change in changes(c.regime):
        row = _row(c, change, measured, theory)
        rows += [] if row is None else [row]
    return rows


def changes(r: Regime) -> list[Change]:
    """Where the learning rate jumps between constant intervals, at a checkpoint or within one interval.

    A jump of the decay alone (of λ, or of a clock against a learning rate that the caller holds constant) is none.
    """
    found, n = [], len(r.decay)
    for i in range(n - 1):
        if r.changes[i]:
            continue
        j = i + 1 if not r.changes[i + 1] else i + 2
        if j >= n or r.changes[j]:
            continue
        old, new = r.rate_last[i], r.rate_first[j]
        before, after = (r.decay[k] / r.updates[k] for k in (i, j))
        if not (old > 0 and new > 0 and before > 0 and after > 0):
            continue
        ratio = (after / before) / (new / old) ** 2  # of η²/x: whatever rule ties λ to η
        if max(ratio, 1 / ratio) < JUMP or abs(new - old) <= SAME * old:  # decay alone changed: another transient
            continue
        first = last = step = float(r.steps[i + 1])
        if j == i + 2:  # within an interval: where Σ η says
            share = (r.rate_sum[i + 1] / r.updates[i + 1] - new) / (old - new)
            step += float(np.clip(share, 0, 1)) * float(r.steps[i + 2] - r.steps[i + 1])
            first, last = (step, step) if r.located[i + 1] else (first, float(r.steps[i + 2]))
        later = [k for k in range(j, n) if r.changes[k] or not r.same(j, k)]
        until = float(r.steps[later[0]] if later else r.steps[-1])
        found.append(Change(step, float(new / old), float(ratio), until, first, last))
    return found


def _pace(c: Context, change: Change) -> float:
    """Half-lives per step after the change, as theory counts them; NaN if it does not, or if it began out of balance.

    Out of balance: fewer than BALANCED half-lives before, so that the dip is another one.
    """
    known = [(p["step"], p["half_lives"]) for p in c.predicted if p["half_lives"] is not None]
    after = [(s, h) for s, h in known if change.step <= s <= change.until]
    before = [h for s, h in known if s <= change.step]
    if len(after) < 2 or not before or before[-1] < BALANCED:
        return np.nan
    return (after[-1][1] - after[0][1]) / (after[-1][0] - after[0][0])


def _row(c: Context, change: Change, measured: list[Row], theory: dict[int, Row]) -> Row | None:
    """Measured over predicted, where theory is away from equilibrium by more than OVER.

    A change that is not located may lie anywhere between two checkpoints: the interval holds that of either end.
    """
    pace, start = _pace(c, change), change.last + MEMORY * c.regime.smear
    places = (change.step, *((change.first, change.last) if change.first < change.last else ()))
    ratios: list[list[float]] = []
    steps: list[int] = []
    for a in measured:
        step, rest = a["step_to"], theory.get(a["step_to"], {}).get("equilibrium_angular_update")
        if a["steps_covered"] != 1 or not start <= step - 1 < change.until or not rest or not np.isfinite(pace):
            continue
        since = step - 1 - np.array(places)
        parts = 1 / np.sqrt(1 + (change.ratio - 1) * 2.0 ** (-pace * since))  # root of a sum > 0
        if abs(parts[0] - 1) > OVER:
            ratios.append(list(a["angular_update"] / (parts * rest)))
            steps.append(step)
    batches = np.cumsum(np.diff(steps, prepend=steps[:1]) >= MEMORY * c.regime.smear)
    found = [agreement.rms_interval(column, batches) for column in np.array(ratios).T]
    told = [ratio for ratio in found if ratio is not None]
    if not told:
        return None
    ratio = replace(told[0], low=min(x.low for x in told), high=max(x.high for x in told))
    where = f"at step {change.step:.0f}"
    if len(places) > 1:
        where += f" or anywhere from {change.first:.0f} to {change.last:.0f}, as the interval allows"
    method = (
        f"{measured[0]['method']}, {ratio.method}, {steps[0] - change.step:.0f} to {steps[-1] - change.step:.0f} steps "
        f"after learning rate × {change.factor:.3g} {where}; predicted: {change.ratio**-0.5:.2g} of "
        "the new equilibrium right after it, then back"
    )
    outcome, kind = ratio.outcome, str(KINDS[ratio.outcome])
    if outcome == agreement.DIFFERS:
        outcome = DIFFERS
        if c.regime.power == 2:
            outcome, kind = "theory's approximation is up to 12 % off here", str(Kind.NOT_APPLICABLE)
    return c.row("angle_after_change", ratio.value, ratio.low, ratio.high, method=method, outcome=outcome, kind=kind)
