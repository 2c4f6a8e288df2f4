"""Quantity agreement: measured over predicted angular update, in the stationary stretch or of the last measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smd_analyze.fits import agreement
from smd_analyze.fits.context import Context, Row
from smd_analyze.fits.outcomes import Kind, Outcome
from smd_analyze.fits.regime import FOURTH_POWER
from smd_analyze.fits.stationary import gap

MEMORY = 2  # times 1/(1−α): optimizer steps after which one update says nothing about the next
ADVICE = {
    agreement.FEW: "measure more updates at this learning rate: three or more pairs of checkpoints or optimizer states",
    agreement.DIFFERS: "each measures the update just made: one that ends an epoch with a short batch turns more",
}
KINDS = {
    agreement.AGREES: Kind.SETTLED, agreement.DIFFERS: Kind.SETTLED, agreement.UNSURE: Kind.TOO_FEW,
    agreement.FEW: Kind.TOO_FEW,
}  # fmt: skip


def measured_rows(rows: Sequence[Row]) -> list[Row]:
    """The independent measurements to use: one method, consecutive checkpoints before buffers unless these are more."""
    kinds = {m: [a for a in rows if a["independent"] and a["method"] == m] for m in ("consecutive", "buffer")}
    kinds = {m: [a for a in found if a["angular_update"] is not None] for m, found in kinds.items()}
    return max(kinds.values(), key=len)


def within(rows: list[Row], since: float | None) -> list[Row]:
    """The rows from step `since` on; of those none, or without `since`, the last row."""
    later = (
        [] if since is None else [a for a in rows if a["step_from"] >= since or _single(a) and a["step_to"] >= since]
    )
    return later or rows[-1:]


def _single(row: Row) -> bool:
    """Whether it is the angle of one update, read at the checkpoint that it made."""
    return row["steps_covered"] == 1


def agreement_rows(c: Context) -> list[Row]:
    """The one row of quantity agreement."""
    r = c.regime
    measured = sorted(measured_rows(c.angles), key=lambda a: a["step_to"])
    if not measured:
        shown = " ".join(a["note"] or "" for a in c.angles if a["independent"])
        if Outcome.BELOW.words in shown:
            return [c.row("agreement", **Outcome.BELOW.said())]
        useful = r.optimizer == "adamw" or (r.optimizer in FOURTH_POWER and (r.momentum > 0).any() and not r.nesterov)
        said = Outcome.NO_MEASUREMENT.said()
        return [
            c.row("agreement", **said | {"advice": said["advice"] + (", or the optimizer state" if useful else "")})
        ]
    equilibrium = {p["step"]: p["equilibrium_angular_update"] for p in c.predicted}
    since = None if c.since is None else float(c.series.steps[c.since])
    blind = c.stationarity is None  # norms do not tell where they stand: the later half of the last learning rate
    last = min(max((c.start + c.present) // 2, r.final_stretch()), len(c.series.steps) - 1)
    late = float(c.series.steps[last]) if blind and c.present > 1 else since
    used = within(measured, late)
    theory = np.array([equilibrium.get(a["step_to"]) or np.nan for a in used])
    found = np.array([np.nan if a["angular_update"] is None else a["angular_update"] for a in used], float)
    ratio = agreement.rms_interval(found / theory, batches(used, MEMORY * r.smear))
    if ratio is None:
        said = Outcome.NO_PREDICTION.said()
        said["advice"] = gap(r)["advice"] if r.gap else ""
        return [c.row("agreement", **said)]
    said = {"outcome": ratio.outcome, "advice": ADVICE.get(ratio.outcome, ""), "kind": str(KINDS[ratio.outcome])}
    if not c.invariant:
        said |= {"outcome": Outcome.REFERENCE.words, "kind": str(Outcome.REFERENCE.kind)}
    elif since is None:
        said = (Outcome.STANDING_UNKNOWN if blind else Outcome.NOT_AT_EQUILIBRIUM).said()
    method = f"{used[0]['method']}, {ratio.method}"
    return [c.row("agreement", ratio.value, ratio.low, ratio.high, method=method, **said)]


def batches(rows: list[Row], reach: float) -> np.ndarray:
    """Numbers of the batches that rows, sorted by step, form: of those less than `reach` steps apart."""
    steps = np.array([a["step_to"] for a in rows], float)
    numbers, begin = np.zeros(len(rows), int), steps[0]
    for i in range(1, len(rows)):
        new = steps[i] - begin >= reach
        begin = steps[i] if new else begin
        numbers[i] = numbers[i - 1] + new
    return numbers
