"""Clocks as rows of the `clocks` table: one per clock and interval, each with its kind and evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from smd_analyze.clocks import certifying
from smd_analyze.clocks import thresholds as at
from smd_analyze.clocks.measuring import Measured, Steps
from smd_analyze.clocks.replaying import Replay
from smd_analyze.clocks.rule import Claimed, Judged
from smd_analyze.records.finding import Finding

if TYPE_CHECKING:
    import polars as pl

MOVING, NO_DECAY, AT_MOST = "moving", "no decay", "at most"
EXACT = 1e-9  # relative half-width of a rate whose every bit was reproduced
COLUMNS = (
    "clock", "parameter", "functional", "step_from", "step_to", "decay_per_step", "decay_per_step_low",
    "decay_per_step_high", "kind", "directions", "evidence",
)  # fmt: skip

Row = dict[str, Any]


def rows(
    clocks: Sequence[Claimed], replays: Mapping[tuple[int, int], Replay], reasons: Mapping[int, str], steps: Steps
) -> list[Row]:
    """Every interval in which a clock holds, or was reproduced in every bit."""
    out: list[Row] = []
    for number, clock in enumerate(clocks):
        m = clock.measured
        for i in range(len(m.fall)):
            replay = replays.get((number, i))
            if replay is None and not clock.where[i]:
                continue
            told = _told(clock, i, steps) if replay is None else _reproduced(replay)
            if told is None:
                continue
            evidence = f"{_evidence(m, i)}{_more(clock, reasons.get(number))}"
            if replay is not None:
                evidence = f"{certifying.words(replay)}; {evidence}"
            out.append(_row(m, i, steps) | told | {"evidence": evidence})
    return out


def _row(m: Measured, i: int, steps: Steps) -> Row:
    c = m.candidate
    return {
        "clock": f"{c.parameter} ({c.functional})",
        "parameter": c.parameter,
        "functional": c.functional,
        "step_from": int(steps.numbers[m.first[i]]),
        "step_to": int(steps.numbers[m.last[i]]),
        "directions": c.elements,
    }


def _reproduced(replay: Replay) -> Row:
    """The rate that the bits prove."""
    rate = replay.rate
    ends = (-np.log1p(-replay.low), -np.log1p(-replay.high)) if replay.form != "factor" else (rate, rate)
    return _numbers(MOVING, rate, float(ends[0]) * (1 - EXACT), float(ends[1]) * (1 + EXACT))


def _told(clock: Claimed, i: int, steps: Steps) -> Row | None:
    """Rate and interval by kind; None where a clock runs backwards, which is a finding and no rate."""
    m = clock.measured
    rate, half = float(m.rate[i]), at.NORMAL_95 * float(m.error[i])
    low, high = rate - half, rate + half
    if m.rests[i] and high < at.NO_DECAY * steps.least:
        return _numbers(NO_DECAY, rate, low, high)
    if rate < -at.APART * float(m.error[i]):
        return None
    resolution = at.RESOLUTION * steps.most if steps.known or m.candidate.kind == "slice" else 0.0
    if m.rests[i] or rate < resolution or low <= 0:
        return _numbers(AT_MOST, max(rate, 0.0), 0.0, max(high, resolution))
    return _numbers(MOVING, rate, low, high)


def _numbers(kind: str, rate: float, low: float, high: float) -> Row:
    return {
        "kind": kind, "decay_per_step": rate, "decay_per_step_low": low, "decay_per_step_high": high,
    }  # fmt: skip


def _evidence(m: Measured, i: int) -> str:
    return f"{m.candidate.elements} elements kept their direction to 1 − cos = {m.turn[i]:.1g}"


def _more(clock: Claimed, reason: str | None) -> str:
    others = f"; {clock.others} more slices of this tensor agree" if clock.others else ""
    return others + (f"; expected by the graph: {reason}" if reason else "")


def constant_rows(judged: Judged, steps: Steps) -> list[Row]:
    """Slices with the same bits while their tensor moves: decay below half an ulp of every element, and no more.

    An element u·2^e (½ ≤ u < 1) keeps its bits if the decay of one step is below 2^-25/u of it. One slice of each
    tensor speaks for the others; none where a clock of the tensor moves, or where steps are not optimizer steps.
    """
    moving = {c.measured.candidate.parameter for c in judged.clocks}
    groups: dict[str, list[Measured]] = {}
    for m in judged.constant if steps.known else ():
        if m.candidate.parameter not in moving:
            groups.setdefault(m.candidate.parameter, []).append(m)
    out: list[Row] = []
    for members in groups.values():
        m = max(members, key=lambda m: int((m.same & m.holds).sum()))
        for i in np.flatnonzero(m.same & m.holds):
            v = m.candidate.values[m.last[i]]
            bound = float(2.0**-25 / np.frexp(np.abs(v[v != 0]))[0].max())
            others = f"; {len(members) - 1} more slices of this tensor likewise" if len(members) > 1 else ""
            told = f"{m.candidate.elements} elements have the same bits: less than half an ulp per step{others}"
            out.append(_row(m, int(i), steps) | _numbers(AT_MOST, 0.0, 0.0, bound) | {"evidence": told})
    return out


def without_decay(table_rows: Sequence[Row]) -> list[Finding]:
    """One finding for each clock that never moves: no decay acts on its tensor."""
    kinds: dict[str, set[str]] = {}
    for row in table_rows:
        kinds.setdefault(row["clock"], set()).add(row["kind"])
    out = []
    for clock, seen in kinds.items():
        if seen == {NO_DECAY}:
            own = [r for r in table_rows if r["clock"] == clock]
            most = max(r["decay_per_step_high"] for r in own)
            text = (
                f"no decay acts on it: its {own[0]['functional']}, which feels no gradient, stays where it is (at most "
                f"{most:.1g} per step)"
            )
            remedy = "if weight decay was meant to act here, it did not: check the optimizer's parameter groups"
            out.append(Finding("no-decay", "note", own[0]["parameter"], text, remedy))
    return out


def frame(table_rows: Sequence[Row]) -> pl.DataFrame:
    """The `clocks` table (docs/report-format.md)."""
    import polars as pl

    texts = ("clock", "parameter", "functional", "kind", "evidence")
    whole = ("step_from", "step_to", "directions")
    schema = {n: pl.String if n in texts else pl.Int64 if n in whole else pl.Float64 for n in COLUMNS}
    return pl.DataFrame([{n: r[n] for n in COLUMNS} for r in table_rows], schema, orient="row")
