"""Quantity drift_fraction: which share of the squared gradient keeps one direction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smd_analyze.fits.context import LEVEL, SPACING, Context, Row
from smd_analyze.fits.outcomes import Kind
from smd_analyze.fits.windows import Window

NAME = "drift_fraction"
SMALL = 0.25  # of x_e k: beyond, decay bends the curve too much
TURNED = 0.6  # rad: beyond, a straight way is too far around the sphere
FEWEST_LAGS = 3
FEWEST_BLOCKS = 4
STRAIGHT = 0.15  # of θ²: what the two terms may miss at any lag
ADVICE = "save checkpoints more often at one constant learning rate"


def drift_row(c: Context, found: Sequence[Window]) -> Row:
    r"""f in $\theta_k^2 = D[(1-f)\kappa_k + fk^2]$, a share f of E‖g̃‖² in one fixed direction.

    $\kappa_k$ is the shape of the zero-mean curve, $\kappa_k \to k$: least squares of $\theta_k^2/k$ on that and k, at
    lags from 5/(1−α) steps on while x_e k ≤ SMALL, each of at least FEWEST_BLOCKS blocks of the longest lag in turn;
    the interval is the jackknife's over the blocks (t quantile). Simulated: benchmarks/lags.py.
    """
    r = c.regime
    if not c.invariant:
        return c.row(NAME, outcome="reference only: not scale-invariant", kind=str(Kind.NOT_APPLICABLE))
    if c.moving:
        return c.row(NAME, outcome="the learning rate changes throughout", kind=str(Kind.TOO_FEW), advice=ADVICE)
    decay = float(np.nan_to_num(r.decay[c.start :] / r.updates[c.start :]).max(initial=0.0))
    short = [p for p in found if p.steps * decay <= SMALL and p.angle <= TURNED and p.free_angle <= 2 * TURNED]
    long = [p for p in short if p.steps >= SPACING * r.smear]
    blocks = _blocks(long)
    if blocks is None:
        words = f"too few checkpoints: it takes {FEWEST_LAGS} lags of at most {TURNED} rad, {FEWEST_BLOCKS} times over"
        words = words if short else "the weights turn too far between checkpoints"
        return c.row(NAME, outcome=words, kind=str(Kind.TOO_FEW), advice=ADVICE)
    lags, turned, free = blocks
    rate = _rate(lags, free.mean(axis=0))
    if not rate > 0:
        words = "zero-mean gradients would turn no further at longer lags: the norm moves too much"
        return c.row(NAME, outcome=words, kind=str(Kind.NOT_APPLICABLE))
    design = np.column_stack([free.mean(axis=0) / rate, lags**2]) / lags[:, None]
    terms = np.linalg.lstsq(design, (turned / lags).T, rcond=None)[0]  # D(1−f), Df of each block
    noise, drift = terms.mean(axis=1)
    fitted, seen = design @ [noise, drift], turned.mean(axis=0) / lags
    low, high = _jackknife(terms)
    if high < 0 or noise <= 0:
        words = "no steady drift: θ² grows more slowly than by independent gradients alone"
        words = words if drift < 0 else "drift alone: no independent part can be told"
        return c.row(NAME, outcome=words, kind=str(Kind.NOT_APPLICABLE))
    if np.abs(fitted / seen - 1).max() > STRAIGHT:
        words = "no steady direction: angles grow otherwise than by independent gradients and one drift"
        return c.row(NAME, outcome=words, kind=str(Kind.NOT_APPLICABLE))
    value = drift / (noise + drift)
    method = f"θ²/k on k, {len(lags)} lags of {lags[0]:.4g} … {lags[-1]:.4g} steps, jackknife over {len(turned)} blocks"
    what = "gradient" if r.power == 4 else "update"
    words = "no steady drift is needed" if low <= 0 else f"this share of the squared {what} keeps one direction"
    return c.row(
        NAME, max(value, 0.0), max(low, 0.0), max(high, 0.0), method=method, outcome=words, kind=str(Kind.ESTIMATED)
    )


def _rate(lags: np.ndarray, squares: np.ndarray) -> float:
    """D of zero-mean gradients [rad²/step]: slope of −2 ln cos θ⁰, which stays straight, between the longest lags."""
    straight = -2 * np.log(np.cos(np.sqrt(squares[-2:])))
    return float((straight[1] - straight[0]) / (lags[-1] - lags[-2]))


def _blocks(found: Sequence[Window]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(lags [K] in steps, θ² [B, K], that of zero-mean gradients [B, K]) of B stretches of the longest lag.

    The longest lag with at least FEWEST_BLOCKS stretches that all hold every shorter lag; None if there are fewer than
    FEWEST_LAGS lags up to it.
    """
    by: dict[float, list[Window]] = {}
    for pair in found:
        by.setdefault(round(pair.steps, 6), []).append(pair)
    lags = sorted(by)
    for count in range(len(lags), FEWEST_LAGS - 1, -1):
        rows = []
        for whole in by[lags[count - 1]]:
            end = whole.start + whole.reach
            inside = [[p for p in by[lag] if whole.start <= p.start < end] for lag in lags[:count]]
            if all(inside):
                both = (
                    [[p.angle**2 for p in part] for part in inside],
                    [[p.free_angle**2 for p in part] for part in inside],
                )
                rows.append([[np.mean(part) for part in squares] for squares in both])
        if len(rows) >= FEWEST_BLOCKS:
            found_rows = np.array(rows)
            return np.array(lags[:count]), found_rows[:, 0], found_rows[:, 1]
    return None


def _jackknife(terms: np.ndarray) -> tuple[float, float]:
    """Ends of the interval of f from the blocks' terms [2, B], leaving one block out in turn."""
    from scipy.special import stdtrit  # heavy

    count = terms.shape[1]
    noise, drift = (terms.sum(axis=1)[:, None] - terms) / (count - 1)
    whole = terms.mean(axis=1)
    each, value = drift / (noise + drift), whole[1] / whole.sum()
    error = np.sqrt((count - 1) / count * ((each - each.mean()) ** 2).sum())
    width = float(stdtrit(count - 1, 0.5 + LEVEL / 2)) * error
    return float(value - width), float(value + width)
