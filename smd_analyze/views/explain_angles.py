"""The angular update of one layer: at equilibrium, implied by the norms, measured, and how they compare."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from smd_analyze.views.explain_facts import Facts, Row
from smd_analyze.views.explain_laws import ADAM_L2, MUON, Law, law_of
from smd_analyze.views.explain_second_moment import second_moment_angle
from smd_analyze.views.explain_transient import batches, transient_ways
from smd_analyze.views.explain_updates import implied, measured, size_words, update_size
from smd_analyze.views.explain_ways import Way
from smd_analyze.views.text import angle_scale, counted, given, number, present

METHODS = {
    "consecutive": "checkpoints one step apart",
    "buffer": "rebuilt from the saved optimizer state",
}
NOT_IMPLIED = "θ₁ implied: no number; two norms and the schedule between them are needed"
NOT_MEASURED = (
    "θ₁ measured: no number; it needs the optimizer's state in the checkpoints, or two checkpoints one step apart"
)


def angle_ways(f: Facts) -> Iterator[Way | str]:
    """θ*, θ₁ implied, θ₁ measured, their ratio, and the transient of a learning-rate change."""
    values = [row["angular_update"] for row in f.angles] + [f.last.get("equilibrium_angular_update")]
    scale, unit = angle_scale(values)
    unit = unit.replace("step", f.unit)
    yield from equilibrium(f, scale, unit)
    yield from _summary(f, "implied", [r for r in f.angles if r["method"] == "norms"], scale, unit)
    yield from _summary(f, "measured", _independent(f), scale, unit)
    yield from _agreement(f)
    yield from transient_ways(f)


def equilibrium(f: Facts, scale: float, unit: str) -> Iterator[Way | str]:
    """θ* of the update that made the last checkpoint."""
    law, held = law_of(f.row, f.decay), f.last.get("equilibrium_angular_update")
    if isinstance(law, Law) and law.name == ADAM_L2 and present(held):
        yield second_moment_angle(f, scale, unit)
        return
    if not present(held) or isinstance(law, str):
        why = "no decay" if f.row.get("weight_decay") == 0 else f.last.get("source") or "no prediction for this layer"
        yield f"θ* = –: no equilibrium angular update; {why}"
        return
    steps, result = law.angle()
    notes = [law.source, reserve(f)]
    within, why = 0.0, ""
    if law.name == MUON:
        steps, result, within, why = _from_level(f, law)
    yield Way(
        "equilibrium_angular_update", "θ*", f"at equilibrium, for the update of step {f.last['step']}", held,
        steps, result, unit=unit, scale=scale, within=within, why=why, notes=(*notes, *assumed(f)),
    )  # fmt: skip


def _from_level(f: Facts, law: Law) -> tuple[tuple[str, ...], float | None, float, str]:
    """θ* of Muon from its equilibrium norm and the size of its update."""
    level: Any = f.last.get("equilibrium_norm")
    rate: Any = f.row.get("learning_rate_last")
    size = update_size(f)
    if not present(level) or not present(rate) or size is None:
        return (), None, 0.0, ""
    words = (
        f"θ*² ≈ η²‖u‖²/‖w‖*² − (ηλ)²: η = {given(rate)}, ηλ = {given(law.x)}, ‖w‖* = {number(level)}, "
        f"‖u‖² ≈ {number(size, 3)} ({size_words(f)})"
    )
    square = rate**2 * size / level**2 - law.x**2
    result = math.sqrt(square) if square > 0 else None
    return (words,), result, 0.1, "‖u‖² in round numbers: the report simulates Newton–Schulz updates of this shape"


def reserve(f: Facts) -> str:
    """How far theory may be taken for this layer, "" where without reserve."""
    return "" if f.invariant else f"a reference only: {f.layer['status']}"


def assumed(f: Facts) -> list[str]:
    """What the schedule's last row assumes, in its own words."""
    return [part for part in str(f.row.get("source") or "").split("; ") if "assum" in part]


def _independent(f: Facts) -> list[Row]:
    """Rows of the measured method that the table uses: consecutive checkpoints, unless buffers are more."""
    rows = [r for r in f.angles if r["independent"] and present(r["angular_update"])]
    kinds = [[r for r in rows if r["method"] == m] for m in METHODS]
    return max(kinds, key=len) or [r for r in f.angles if r["independent"]][-1:]


def used(f: Facts, rows: Sequence[Row]) -> list[Row]:
    """Those that the table's number is the root mean square of: from the stationary stretch, else the last."""
    since = f.fit("stationary_since").get("value")
    rows = [r for r in rows if present(r["angular_update"])]
    if present(since):
        later = [
            r for r in rows if r["step_from"] >= since or (r["steps_covered"] == 1 and r["step_to"] >= since)
        ]  # fmt: skip
        rows = later or rows[-1:]
    return rows if present(since) else rows[-1:]


def _summary(f: Facts, name: str, rows: Sequence[Row], scale: float, unit: str) -> Iterator[Way | str]:
    """The table's number, then one of the rows that it is made of."""
    known = [r for r in rows if present(r["angular_update"])]
    if not known:
        note = next((r["note"] for r in reversed(rows) if r.get("note")), "")
        law = law_of(f.row, f.decay)
        unknown = law if isinstance(law, str) else "decay depends on the gradients" if law.name == ADAM_L2 else ""
        why = note or (unknown if name == "implied" and f.row else "")
        yield f"θ₁ {name}: no number; {why}" if why else NOT_IMPLIED if name == "implied" else NOT_MEASURED
        return
    found, held = used(f, rows), f.layer.get(name)
    what = (
        "an identity of the norms: beside θ* it says whether the norm is stationary"
        if name == "implied" else "independent of the norms: beside θ* it tests theory"
    )  # fmt: skip
    one = _one(f, found[-1], scale, unit)
    if len(found) == 1 or not present(held):
        yield replace(one, symbol=f"θ₁ {name}", meaning=f"{what}; {one.meaning}")
        return
    mean = math.sqrt(sum(r["angular_update"] ** 2 for r in found) / len(found))
    ends, basis = (f.layer.get(f"{name}_low"), f.layer.get(f"{name}_high")), "EI" if name == "implied" else "θ₁/θ*"
    yield Way(
        name, f"θ₁ {name}", what, held,
        (f"root mean square of {len(found)} values from step {found[0]['step_from']} on",), mean,
        *ends, unit, scale, notes=(f"± that of {basis}, relative" if present(ends[0]) else "",),
    )  # fmt: skip
    yield replace(one, symbol="the last of them, θ₁")


def _one(f: Facts, row: Row, scale: float, unit: str) -> Way:
    """One row of `angular_updates`."""
    start, stop, by_norms = row["step_from"], row["step_to"], row["method"] == "norms"
    steps, result, within, why = implied(f, row) if by_norms else measured(f, row)
    when = f"step {stop}, {METHODS[row['method']]}" if row["method"] in METHODS else f"steps {start} to {stop}"
    rests = ""
    if present(row["angular_update_low"]):
        rests = "± scatter over units" + (", Σηλ, momentum's memory" if by_norms else "")
    return Way(
        f"angular_update {row['method']}", "θ₁", when, row["angular_update"], steps, result,
        row["angular_update_low"], row["angular_update_high"], unit, scale, within=within, why=why,
        notes=(rests, _cautions(row)),
    )  # fmt: skip


def _cautions(row: Row) -> str:
    """The row's note, without what the page says elsewhere."""
    parts = str(row.get("note") or "").split("; ")
    return "; ".join(p for p in parts if p not in ("if invariant", "with the saved momentum at both ends"))


def _agreement(f: Facts) -> Iterator[Way | str]:
    """Measured over equilibrium angular update."""
    row = f.fit("agreement")
    if not row:
        return
    if not present(row["value"]):
        yield f"θ₁/θ*: no number; {row['outcome']}" + (f" ({row['advice']})" if row["advice"] else "")
        return
    theory = {p["step"]: p["equilibrium_angular_update"] for p in f.predicted}
    told = re.search(r"rms of (\d+) measurement", str(row["method"]))
    found = [r for r in _independent(f) if theory.get(r["step_to"])][-int(told[1]) if told else -1 :]
    ratios = [(r["step_to"], r["angular_update"] / theory[r["step_to"]]) for r in found if theory.get(r["step_to"])]
    means = batches(f, ratios)
    result = math.sqrt(sum(means) / len(means)) if means else None
    many = "" if len(means) == len(ratios) else f" in {len(means)} batches (updates within 2/(1−α) steps are one batch)"
    yield Way(
        "agreement", "θ₁/θ*", f"measured over equilibrium: {row['outcome']}", row["value"],
        (f"root mean square of {counted(len(ratios), 'ratio')}{many}",), result, row["low"], row["high"],
        notes=("± t interval over the batches" if present(row["low"]) else "too few for an interval",),
    )  # fmt: skip
