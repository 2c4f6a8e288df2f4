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
    near = f"{row['start_lowest']:.2g} to {row['start_highest']:.3g} times it"
    if halves < SHORT:
        return (
            f"{said}: too short for the balance to be reached, whatever the data say ({percent(row['covered'])} of the "
            f"way at most), unless the norm began at {near}{_more(row, unit)}"
        )
    if moves and isfinite(row["lag"]):
        if abs(row["lag"] - 1) <= TOLERANCE:
            return f"{said}: long enough for the norm to follow its balance, which moves with the learning rate"
        way = "falls" if row["lag"] > 1 else "rises"
        return f"{said}, but the balance {way} faster: the norm ends at about {row['lag']:.2g} times its balance"
    moving = ", which moves with the learning rate" if moves else ""
    if row["start_highest"] < FAR:
        if row["start_lowest"] == 0:
            near = f"{row['start_highest']:.2g} times it or less"
        return (
            f"{said}: the norm can have covered {percent(row['covered'])} of the way to its balance{moving}; it is "
            f"there if it began at {near}{_more(row, unit)}"
        )
    return f"{said}: long enough for the balance to be reached{moving}"


def tail_words(row: Mapping[str, Any]) -> str:
    """From where on decay moves nothing more, if that is long before the end: the learning rate has cooled down."""
    span, tail = row["step_to"] - row["step_from"], row["step_to"] - row.get("tail_from", float("nan"))
    usual = span * TAIL / max(row.get("half_lives", 0.0), TAIL)  # at the run's mean rate
    if not (tail > 0.05 * span and COOL * usual < tail < span):
        return ""
    return f"; what is left after step {row['tail_from']:.0f} moves it by less than 10 % of the way"


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
    return f"{value:.0f} %" if value >= 1 else f"{value:.1g} %" if value >= 0.01 else "0.01 %"


def _more(row: Mapping[str, Any], unit: str) -> str:
    """How much longer it would take, from FAR times the balanced norm."""
    span = row["step_to"] - row["step_from"]
    missing = row["steps_needed"] - span
    if not (isfinite(missing) and missing > 0):
        return ""
    return f"; from twice its balance it takes {large(row['steps_needed'])} {unit}, {large(missing)} more"


def large(value: float) -> str:
    """Two or three digits of a number of steps."""
    if value >= 1e6:
        return f"{value:.2g}".replace("e+0", "e").replace("e+", "e")
    if value < 10:
        return f"{value:.2g}"
    rounded = round(float(f"{value:.3g}"))
    return f"{rounded:,}".replace(",", "\u00a0") if rounded >= 10_000 else str(rounded)
