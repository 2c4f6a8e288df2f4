"""Quantities equilibrium_index and stationary_since: does the norm stand still, and since which step?"""

from __future__ import annotations

from typing import Any

import numpy as np

from smd_analyze.fits import checks, index
from smd_analyze.fits.context import COARSE, OSCILLATES, Context, Row
from smd_analyze.fits.outcomes import Kind, Outcome
from smd_analyze.fits.regime import COUPLED, DECOUPLED, MIXED, Regime

PURE_DECAY = -1.0  # the equilibrium index where there is no gradient: nothing shrinks faster under SGD
EQUIVALENCE_TEST = f"90 % interval of the equilibrium index within ±{index.TOLERANCE:g} from this step to the end"


def stationarity_rows(c: Context) -> list[Row]:
    """equilibrium_index (with its spread over the units) and stationary_since (a step), or why not."""
    found = c.stationarity
    if found is None or not np.isfinite(found.value):
        said = why_not(c)
        return [c.row(q, **said) for q in ("equilibrium_index", "stationary_since")]
    method = (
        f"norms of {found.blocks} intervals from step {c.series.steps[found.first]:g} on, median over units, t interval"
    )
    if c.moving:
        method += "; the learning rate changes throughout"
    if c.regime.momentum_assumed:
        method += f"; momentum {c.regime.momentum[-1]:g} assumed"
    said, since = _standing(c, found)
    said["checks"] = checks.told(c)
    numbers = {"p10": found.p10, "p90": found.p90, "method": method}
    return [
        c.row("equilibrium_index", found.value, found.low, found.high, **numbers, **said),
        c.row("stationary_since", since, method=EQUIVALENCE_TEST, **said),
    ]


def standing(c: Context) -> dict[str, Any]:
    """Outcome, kind and advice of the equilibrium index: the one word for where a norm stands."""
    found = c.stationarity
    return why_not(c) if found is None or not np.isfinite(found.value) else _standing(c, found)[0]


def _standing(c: Context, found: index.Stationarity) -> tuple[dict[str, Any], int | None]:
    """Outcome, kind and advice, and since which step the norm stands."""
    if c.held:
        return Outcome.HELD.said(), None
    number = c.regime.momentum_number
    if number > OSCILLATES:
        return Outcome.OSCILLATES.said((f"{number:.2g}",)), None
    if found.high < PURE_DECAY:
        return (Outcome.IMPOSSIBLE if c.regime.power == 4 else Outcome.SHRINKS).said(), None
    if found.since is not None:
        return (Outcome.FOLLOWS if c.moving else Outcome.STATIONARY).said(), int(c.series.steps[found.since])
    return _not_stationary(c, found), None


def _not_stationary(c: Context, found: index.Stationarity) -> dict[str, Any]:
    """What to call a norm that passes no equivalence test."""
    if _rounded(c, found) > index.SPREAD:
        return Outcome.BELOW.said()
    around = found.low <= index.TOLERANCE and found.high >= -index.TOLERANCE
    if found.blocks < index.FEWEST:
        if found.blocks < c.present - 1:
            return Outcome.FEW_INTERVALS.said((f"{found.blocks} interval{'s' * (found.blocks > 1)}",), needed(c.regime))
        return Outcome.FEW_CHECKPOINTS.said((c.present,), needed(c.regime))
    if around and found.p10 < 0 < found.p90 and max(-found.p10, found.p90) > index.SPREAD:
        return Outcome.APART.said()
    if c.moving:
        return (Outcome.LAGS_AS_EXPECTED if _as_expected(c) else Outcome.LAGGING).said()
    return (Outcome.UNDECIDED if around else Outcome.MOVING).said()


def _rounded(c: Context, found: index.Stationarity) -> float:
    r"""What the rounding of saved weights adds to one unit's equilibrium index over its stretch: √2·c/(√d Σx_e).

    Each element is off by c = 0.2125 of its last place (Gaussian weights), twice that and 1/√d in ln‖w‖² of d elements.
    """
    coarse = max((COARSE.get(t, 0.0) for t in c.dtypes), default=0.0)
    size = c.group.numel / max(c.group.units, 1)
    return float(np.sqrt(2 / size) * 0.425 * coarse / c.regime.decay[found.first :].sum())


def _as_expected(c: Context) -> bool:
    """Whether one gradient scale, steady within STEADY, makes the norms what they are under the recorded schedule.

    The norm then lags because the equilibrium moves, and by as much as the relaxation rate says: EI within what the
    schedule's map predicts, since EI is what the scale makes of it.
    """
    if c.scale is None or not np.isfinite(c.scale.drift_size).any():
        return False
    return abs(float(np.nanmedian(c.scale.drift_size)) - 1) <= checks.STEADY


def why_not(c: Context) -> dict[str, Any]:
    """Outcome, kind and advice where there is no equilibrium index."""
    if c.present < 2:
        return Outcome.ONE_CHECKPOINT.said(advice=needed(c.regime))
    if c.frozen:
        return Outcome.FROZEN.said()
    if c.regime.gap:
        return gap(c.regime)
    if not (c.series.vv[-1] > 0).any():
        return Outcome.NOT_FINITE.said()
    if c.regime.no_decay:
        return Outcome.NO_DECAY.said()
    known, steps = np.flatnonzero(np.isfinite(c.regime.decay)), c.regime.steps
    if len(known) and known[-1] + 1 < len(c.regime.decay):  # a decay clock that was read for a while
        first, last = int(steps[known[0]]), int(steps[known[-1] + 1])
        return Outcome.DECAY_ENDS.said((last,), (first, last))
    return Outcome.FEW_CHECKPOINTS.said((c.present,), needed(c.regime))


def needed(r: Regime) -> tuple[int, int]:
    """Checkpoints, and optimizer steps between them, that an equilibrium index needs."""
    return index.FEWEST + 1, round(index.SPACING * r.smear)


def gap(r: Regime) -> dict[str, Any]:
    """Outcome, kind and advice for a gap in the schedule; nothing helps where the optimizer itself has no theory."""
    kind, advice = Kind.SETTINGS_MISSING, "say it with an option or --settings run.toml"
    if r.gap == MIXED:
        kind = Kind.NOT_APPLICABLE
        advice = "theory needs one learning rate and one weight decay for all tensors that share a scale"
    elif r.optimizer not in ("", *COUPLED, *DECOUPLED):
        kind, advice = Kind.NOT_APPLICABLE, ""
    return {"outcome": r.gap, "kind": str(kind), "advice": advice}
