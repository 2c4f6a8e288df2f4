"""What a stage's numbers mean, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from smd_analyze.theory.timescales import FAR, TOLERANCE

TAIL = 0.152  # half-lives that cover 10 % of a way
COOL = 2.0  # times the length that this takes at the mean rate: a tail of low learning rate
SHORT = 1.0  # half-lives below which no norm that is not near its balance can reach it


def outcome(row: Mapping[str, Any], trouble: str, moves: bool, unit: str) -> str:
    """The answer to "could the norm reach its balance in this time?", or why there is none.

    `row`: the stage's numbers (NaN where not known); `trouble`: why there is no theory; `moves`: the level moves with
    the learning rate; `unit`: what steps count.
    """
    if trouble:
        return trouble
    halves = row.get("half_lives", float("nan"))
    if not isfinite(halves):
        return "learning rate or weight decay unknown"
    said = f"{count(halves)} half-lives"
    if halves < SHORT:
        near = f"{row['start_lowest']:.2g} to {row['start_highest']:.3g}"
        return (
            f"{said}: too short for the balance to be reached, whatever the data say, unless the norm began at {near} "
            f"times it; at most {percent(row['covered'])} of the way is covered{_more(row, unit)}"
        )
    if moves and isfinite(row["lag"]):
        if row["lag"] > 1 + TOLERANCE:
            return f"{said}, but the balance falls faster: the norm ends at {row['lag']:.2g} times its balance"
        if row["lag"] < 1 - TOLERANCE:
            return f"{said}, but the balance rises faster: the norm ends at {row['lag']:.2g} times its balance"
        return f"{said}: long enough for the norm to follow its balance, which moves with the learning rate"
    moving = "; its balance moves with the learning rate" if moves else ""
    if row["start_highest"] < FAR:
        low = f" or at least {row['start_lowest']:.2g} times it" if row["start_lowest"] > 0 else ""
        return (
            f"{said}: the norm can have covered {percent(row['covered'])} of the way; enough if it began at most "
            f"{row['start_highest']:.2g} times above its balance{low}{moving}{_more(row, unit)}"
        )
    return f"{said}: long enough for the balance to be reached{moving}"


def tail_words(row: Mapping[str, Any]) -> str:
    """From where on decay moves nothing more, if that is long before the end: the learning rate has cooled down."""
    span, tail = row["step_to"] - row["step_from"], row["step_to"] - row.get("tail_from", float("nan"))
    usual = span * TAIL / max(row.get("half_lives", 0.0), TAIL)  # at the run's mean rate
    if not (tail > 0.05 * span and COOL * usual < tail < span):
        return ""
    return f"; from step {row['tail_from']:.0f} on decay moves it by 10 % of any way at most"


def count(value: float) -> str:
    """Two digits: 0.021, 3.1, 25."""
    if value < 0.001:
        return "fewer than 0.001"
    return f"{value:.0f}" if value >= 9.95 else f"{value:#.2g}"


def percent(share: float) -> str:
    """Per cent, never a rounded 0 or 100."""
    value = 100 * share
    if value > 99.5:
        return "more than 99 %"
    return f"{value:.0f} %" if value >= 1 else "less than 1 %"


def _more(row: Mapping[str, Any], unit: str) -> str:
    """How much longer it would take, from FAR times the balanced norm."""
    span = row["step_to"] - row["step_from"]
    missing = row["steps_needed"] - span
    if not (isfinite(missing) and missing > 0):
        return ""
    return f"; from {FAR:g} times its balance it needs {large(row['steps_needed'])} {unit}, {large(missing)} more"


def large(value: float) -> str:
    """Two or three digits of a number of steps."""
    if value >= 1e6:
        return f"{value:.2g}".replace("e+0", "e").replace("e+", "e")
    rounded = float(f"{value:.3g}")
    return (
        f"{rounded:,.0f}".replace(",", "\u2009")
        if rounded >= 10_000
        else f"{rounded:.0f}"
        if rounded >= 10
        else f"{value:.2g}"
    )
