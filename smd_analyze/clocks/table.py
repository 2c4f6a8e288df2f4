"""Clocks as rows of the `clocks` table: one per clock and interval, each with its kind and evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from smd_analyze.clocks import certifying
from smd_analyze.clocks import thresholds as at
from smd_analyze.clocks.measuring import Measured, Steps
from smd_analyze.clocks.replaying import ULP, Replay
from smd_analyze.clocks.rule import Claimed, Judged
from smd_analyze.decay_formulas import rounding_bias
from smd_analyze.records.finding import Finding

if TYPE_CHECKING:
    import polars as pl

FEW_ULPS = 2e-6  # decay per step below which elements lose few enough units in the last place for it to show
MOVING, NO_DECAY, AT_MOST = "moving", "no decay", "at most"
CLOSE = 0.01  # ulp: half-width of a rate whose every bit was reproduced
COLUMNS = (
    "clock", "parameter", "functional", "step_from", "step_to", "decay_per_step", "decay_per_step_low",
    "decay_per_step_high", "kind", "directions", "evidence",
)  # fmt: skip

Row = dict[str, Any]


def rows(
    clocks: Sequence[Claimed], replays: Mapping[tuple[int, int], Replay], reasons: Mapping[int, str], steps: Steps
) -> list[Row]:
    """Every interval in which a clock holds, or was reproduced in every bit."""
    elements: dict[tuple[int, float], int] = {}
    proved: dict[int, dict[int, Replay]] = {}
    for (number, i), replay in replays.items():
        many = clocks[number].measured.candidate.values.shape[1]
        elements[i, replay.decay] = elements.get((i, replay.decay), 0) + many
        proved.setdefault(number, {})[i] = replay
    out: list[Row] = []
    for number, clock in enumerate(clocks):
        own = {i: (r, _reproduced(r, elements[i, r.decay], steps.most)) for i, r in proved.get(number, {}).items()}
        out += _of_clock(clock, own, _more(clock, reasons.get(number)), steps)
    return out


def _of_clock(clock: Claimed, replays: Mapping[int, tuple[Replay, Row | None]], more: str, steps: Steps) -> list[Row]:
    """The rows of one clock. `replays`: interval → how it was reproduced, and the numbers that follow, if any do."""
    m = clock.measured
    shown = clock.where.copy()
    shown[list(replays)] = True
    intervals = np.flatnonzero(shown)
    same, evidence = _same(m), f"{m.candidate.elements} elements kept their direction to 1 − cos = "
    ends = (steps.numbers[at_end[intervals]].astype(np.int64).tolist() for at_end in (m.first, m.last))
    out: list[Row] = []
    for i, first, last, turn, told in zip(
        intervals.tolist(), *ends, m.turn[intervals].tolist(), _told(clock, intervals, steps), strict=True
    ):
        replay, numbers = replays.get(i, (None, None))
        numbers = numbers or told
        if numbers is not None:
            words = f"{evidence}{turn:.1g}{more}"
            words = words if replay is None else f"{certifying.words(replay)}; {words}"
            out.append({**same, "step_from": first, "step_to": last, **numbers, "evidence": words})
    return out


def _row(m: Measured, i: int, steps: Steps) -> Row:
    ends = {"step_from": int(steps.numbers[m.first[i]]), "step_to": int(steps.numbers[m.last[i]])}
    return _same(m) | ends


def _same(m: Measured) -> Row:
    """What all rows of a clock share."""
    c = m.candidate
    return {
        "clock": f"{c.parameter} ({c.functional})", "parameter": c.parameter, "functional": c.functional,
        "directions": c.elements,
    }  # fmt: skip


def _reproduced(replay: Replay, elements: int, updates: float) -> Row | None:
    """The rate per recorded step, of so many updates, that the bits prove: the factor's. None for other forms.

    w − ηλ·w fixes no number: any ηλ is possible, and a settled heavy ball does nearly the same: one of them leaves a
    few elements with the right bits even where it is not quite the one that acted, so the measured rate keeps its own
    interval.

    As for the factor: a kernel of another kind, whose ηλ happens to lie near a multiple of 2^-24, leaves the same bits
    in a few elements. Each bounds ηλ to a random place within an ulp, n of them to an ulp/n or so.
    """
    rate = replay.rate
    if replay.form != "factor":
        return None
    one = replay.decay < 1.5 * ULP  # then every element loses one unit in its last place, whatever the kernel
    half = ULP / 2 if one else ULP * max(1.5 / elements, CLOSE)
    return _numbers(MOVING, rate * updates, (rate - half) * updates, (rate + half) * updates)


def _told(clock: Claimed, intervals: np.ndarray, steps: Steps) -> Iterator[Row | None]:
    """Rate and interval by kind; None where a clock runs backwards, which is a finding and no rate."""
    m = clock.measured
    rates, errors = m.rate[intervals], m.error[intervals]
    halves = at.within_95(m.candidate.values.shape[1] - 1) * errors + _bias(m, intervals, rates) * steps.most
    resolution = at.RESOLUTION * steps.most if steps.known or m.candidate.kind == "slice" else 0.0
    numbers = (a.tolist() for a in (rates, rates - halves, rates + halves, m.rests[intervals], -at.APART * errors))
    for rate, low, high, rests, least in zip(*numbers, strict=True):
        if rests and not clock.moving and high < at.NO_DECAY * steps.least:
            yield _numbers(NO_DECAY, rate, low, high)
        elif rate < least:
            yield None
        elif rests or rate < resolution or low <= 0:
            yield _numbers(AT_MOST, max(rate, 0.0), 0.0, max(high, resolution))
        else:
            yield _numbers(MOVING, rate, low, high)


def _bias(m: Measured, intervals: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """What the elements' own rounding may add to or take from the rate of a slice that moves by a few ulps a step."""
    out = np.zeros(len(rates))
    if m.candidate.dtype in ("float32", "float64") and m.candidate.kind != "sum":
        for n in np.flatnonzero((rates > 0) & (rates < FEW_ULPS)):
            out[n] = rounding_bias(m.candidate.values[m.first[intervals[n]]], float(rates[n]))
    return out


def _numbers(kind: str, rate: float, low: float, high: float) -> Row:
    return {
        "kind": kind, "decay_per_step": rate, "decay_per_step_low": low, "decay_per_step_high": high,
    }  # fmt: skip


def _more(clock: Claimed, reason: str | None) -> str:
    others = f"; {clock.others} more slices of this tensor do the same" if clock.others else ""
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


def without_decay(table_rows: Sequence[Row], steps: Steps) -> list[Finding]:
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
                f"{most:.1g} per {steps.word})"
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
    return pl.DataFrame({n: [r[n] for r in table_rows] for n in COLUMNS}, schema)
