"""The state of a layer in words, claiming no more than may be: norms show stationarity, measured angles agreement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smd_analyze.fits.agreement import AGREES, DIFFERS, FEW, UNSURE
from smd_analyze.fits.context import INVARIANT
from smd_analyze.fits.outcomes import Kind, Outcome
from smd_analyze.records.group import Group

RELAXED = 3.0  # half-lives after which a norm that still moves is no longer said to relax
Fit = Mapping[str, Any]


def plus_minus(fit: Fit) -> str:
    """`0.99 ± 0.02`, or the value alone where there is no interval."""
    if fit["value"] is None:
        return "?"
    if fit["low"] is None or fit["high"] is None:
        return f"{fit['value']:.2f}"
    return f"{fit['value']:.2f} ± {max(0.5 * (fit['high'] - fit['low']), 0.005):.2f}"


def describe(group: Group, fits: Mapping[str, Fit], half_lives: float | None, change: float | None) -> str:
    """At most about 60 characters.

    `fits` maps quantity to the group's row; `half_lives` are those passed at the last checkpoint, `change` the norm's
    change over the run in per cent.
    """
    if group.status == "dead":
        return "dead: no gradient, the loss does not depend on it"
    if group.status == "not invariant":
        return "theory does not apply: not scale-invariant"
    if group.status not in INVARIANT:
        return "scale invariance unknown"
    guess = " (if invariant)" if group.evidence == "guessed" else ""
    return _claim(fits, half_lives, change) + guess


def _claim(fits: Mapping[str, Fit], half_lives: float | None, change: float | None) -> str:
    ei, since, ratio = fits["equilibrium_index"], fits["stationary_since"], fits["agreement"]
    outcome = ei["outcome"]
    if outcome.startswith("no decay"):
        if change is None:
            return "no decay: no equilibrium"
        by = float(f"{abs(change):.2g}")
        return f"no decay: no equilibrium, norm {'grew' if change >= 0 else 'shrank'} {by:g} % over the run"
    if impossible(fits):
        return f"norm falls faster than weight decay alone, EI = {plus_minus(ei)}"
    if since["value"] is not None:
        stands = "follows its equilibrium" if outcome == Outcome.FOLLOWS.words else "stationary"
        text = f"norm {stands} since step {since['value']:.0f}"
        if ratio["outcome"] == AGREES:
            return f"{text}; rotation agrees: {plus_minus(ratio)}"
        if ratio["outcome"] == DIFFERS:
            return f"{text}; rotation differs: {plus_minus(ratio)}"
        if ratio["outcome"] == UNSURE:
            return f"{text}; rotation {plus_minus(ratio)}: too wide"
        if ratio["outcome"] == FEW:
            return f"{text}; rotation {plus_minus(ratio)}: too few to tell"
        if ratio["outcome"] == Outcome.BELOW.words:
            return f"{text}; rotation below resolution"
        return f"{text}, EI = {plus_minus(ei)}"
    if outcome == Outcome.APART.words:
        return f"units differ: EI = {ei['p10']:.1f} to {ei['p90']:.1f}"
    if outcome == Outcome.LAGGING.words:
        return f"norm lags behind the learning rate, EI = {plus_minus(ei)}"
    if outcome == Outcome.LAGS_AS_EXPECTED.words:
        return f"norm lags behind the learning rate as expected, EI = {plus_minus(ei)}"
    if outcome == Outcome.UNDECIDED.words:
        return f"not shown to be stationary, EI = {plus_minus(ei)}"
    if outcome == Outcome.MOVING.words:
        if half_lives is not None and half_lives < RELAXED:
            return f"still relaxing: {half_lives:.1f} half-lives"
        return f"norm still moves, EI = {plus_minus(ei)}"
    if outcome == Outcome.HELD.words:
        return "norm held by the training code: it says nothing of a balance"
    if ratio["outcome"] == Outcome.STANDING_UNKNOWN.words and ratio["value"] is not None:
        return f"{outcome}; rotation {plus_minus(ratio)} of equilibrium"
    return outcome


def impossible(fits: Mapping[str, Fit]) -> bool:
    """Whether the norm falls faster than weight decay alone could make it."""
    return fits["equilibrium_index"]["outcome"] == Outcome.IMPOSSIBLE.words


def settled(fits: Mapping[str, Fit]) -> bool:
    """Whether the norm is stationary, or follows an equilibrium that moves."""
    return fits["equilibrium_index"]["kind"] == Kind.SETTLED
