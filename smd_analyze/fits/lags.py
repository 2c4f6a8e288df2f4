r"""Quantities displacement_exponent, displacement_exponent_zero_mean, excess_retention, drift_fraction.

How the weights move between checkpoints further and further apart, against gradients of zero mean. No verdicts: real
networks mostly turn less (they rattle around a minimum), and drift and confinement may cancel.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from smd_analyze.fits.context import SPACING, Context, Row
from smd_analyze.fits.drift import drift_row
from smd_analyze.fits.outcomes import Kind, Outcome
from smd_analyze.fits.stationary import why_not
from smd_analyze.fits.windows import Window, octaves, windows

MOST_OCTAVES = 3  # the exponent is that of the longest lags
NEAR = 1.25  # factor around 1 within which angles are called about the same
ALIKE, CATCHES_UP = 0.1, 0.3  # difference of exponents up to which they are called the same; from which it is told
REFERENCE = "reference only, not scale-invariant; "


def lag_rows(c: Context) -> list[Row]:
    """The four quantities of the last stretch of constant learning rate (of the later half where it changes)."""
    if not c.lags:
        return []
    found, hidden = windows(c)
    if not found:
        said = _why_none(c, hidden)
        return [c.row(name, **said) for name in ("displacement_exponent", "excess_retention", "drift_fraction")]
    found = [w for w in found if w.steps >= SPACING * c.regime.smear] or found  # beyond what momentum alone does
    grown = _exponents_of(found)
    return [*_exponents(c, grown), _excess(c, found, grown), drift_row(c, found)]


def _why_none(c: Context, hidden: int) -> dict[str, Any]:
    """Outcome, kind and advice where no pair of checkpoints can be compared with theory."""
    if hidden:
        return Outcome.BELOW.said()
    r = c.regime
    if c.frozen:
        return Outcome.FROZEN.said()
    if r.gap:
        return why_not(c)
    notes = [row["note"] for row in c.lags if row["note"]]
    words = notes[-1].split("; ")[-1] if notes else "too few checkpoints at one learning rate"
    kind = Kind.NOT_APPLICABLE if notes else Kind.TOO_FEW
    return {"outcome": words, "kind": str(kind), "advice": ""}


class Grown(NamedTuple):
    """Exponents, measured and of zero-mean gradients, between two lags [steps]."""

    seen: float
    free: float
    shortest: float
    longest: float


def _exponents_of(found: list[Window]) -> Grown | None:
    r"""$d\ln(1-\cos\theta_k)/d\ln k$ over the longest lags, and that of zero-mean gradients at the same lags.

    Least squares of the mean logarithms of pairs of about the same distance; None where there is one distance only.
    """
    usable = [[w for w in part if w.turned > 0] for part in octaves(found)]
    usable = [part for part in usable if part][-MOST_OCTAVES:]
    if len(usable) < 2:
        return None
    at, turned, free = (
        np.array([np.mean([np.log(getattr(w, name)) for w in part]) for part in usable])
        for name in ("steps", "turned", "free")
    )
    seen, expected = (float(np.polyfit(at, y, 1)[0]) for y in (turned, free))
    return Grown(seen, expected, float(np.exp(at[0])), float(np.exp(at[-1])))


def _exponents(c: Context, grown: Grown | None) -> list[Row]:
    """The two exponents. 1 is a random walk, 2 a straight line; momentum alone brings it near 2 below 5/(1−α) steps,
    saturation near 90° and confinement below 1: only both together say something. No interval: lags share their steps.
    """
    names = "displacement_exponent", "displacement_exponent_zero_mean"
    if grown is None:
        return [c.row(names[0], outcome="lags of one length only", kind=str(Kind.TOO_FEW))]
    method = f"d ln(1 − cos θ)/d ln k over {grown.shortest:.4g} … {grown.longest:.4g} steps"
    words = "grows with the lag as zero-mean gradients would make it"
    if abs(grown.seen - grown.free) > ALIKE:
        pace = "more slowly" if grown.seen < grown.free else "faster"
        words = f"grows {pace} with the lag than zero-mean gradients would make it"
    said: dict[str, Any] = {"outcome": _standing(c) + words, "kind": str(Kind.ESTIMATED)}
    return [
        c.row(names[0], grown.seen, method=f"{method}; zero-mean gradients {grown.free:.2f}", **said),
        c.row(names[1], grown.free, method=f"{method}, of zero-mean gradients", kind=str(Kind.ESTIMATED)),
    ]


def _standing(c: Context) -> str:
    return "" if c.invariant else REFERENCE


def _excess(c: Context, found: list[Window], grown: Grown | None) -> Row:
    r"""$E_k = \ln a_k - \ln a_k^0$ at the longest lag, the mean of its pairs, with the same in angles as words."""
    longest = [w for w in octaves(found)[-1] if np.isfinite(w.excess)]
    if not longest:
        return c.row("excess_retention", outcome="nothing is left to compare", kind=str(Kind.NOT_APPLICABLE))
    value = float(np.mean([w.excess for w in longest]))
    ratio = sum(w.turned for w in longest) / sum(w.free for w in longest)
    steps = np.mean([w.steps for w in longest])
    sort = "confined" if ratio < 1 / NEAR else "drifting" if ratio > NEAR else "about as they would"
    if sort == "confined" and grown and grown.seen > grown.free + CATCHES_UP:
        sort += ", but catching up with the lag"
    words = f"turns {ratio:.2g} of what independent gradients would give over {steps:.5g} steps: {sort}"
    method = f"ln of retention over that of zero-mean gradients, over {steps:.5g} steps ({len(longest)} pairs)"
    return c.row("excess_retention", value, method=method, outcome=_standing(c) + words, kind=str(Kind.ESTIMATED))
