"""The weight norm of one layer: as measured, at equilibrium, as expected under the schedule; does it stand still?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from smd_analyze.views.explain_angles import reserve
from smd_analyze.views.explain_facts import Facts, Row
from smd_analyze.views.explain_index import index_of_units
from smd_analyze.views.explain_laws import ADAM_L2, ADAMW, MUON, SMD, law_of
from smd_analyze.views.explain_levels import level_from_buffers, level_from_norms, next_norm
from smd_analyze.views.explain_second_moment import second_moment_norm
from smd_analyze.views.explain_ways import Way
from smd_analyze.views.text import given, number, present


def norm_ways(f: Facts) -> Iterator[Way | str]:
    """Norms and angles as saved, equilibrium norm, expected norm, turning between checkpoints, and standing."""
    yield from _saved(f)
    yield from _equilibrium(f)
    yield from _expected(f)
    yield from _turned(f)
    yield from _standing(f)
    yield from _level(f)


def _saved(f: Facts) -> Iterator[str]:
    """What the files hold, nothing assumed."""
    if not f.norms:
        yield "no checkpoint holds this layer's weights"
        return
    first, last = f.norms[0], f.norms[-1]
    text = f"‖w‖ = {number(last['weight_norm'], 6)} at step {last['step']}"
    if len(f.norms) > 1:
        before, change = f.norms[-2], 100 * (last["weight_norm"] / first["weight_norm"] - 1)
        text += (
            f", {number(before['weight_norm'], 6)} at step {before['step']}, {number(first['weight_norm'], 6)} at step "
            f"{first['step']}: changed by {change:+.3g} % over the run"
        )
    if present(last["angle_from_first"]):
        text += f", turned by {number(last['angle_from_first'])} rad"
    yield text + " (measured from the saved weights)"


def _equilibrium(f: Facts) -> Iterator[Way | str]:
    """‖w‖* of the last update."""
    law, last = law_of(f.row, f.decay), f.last
    held: Any = last.get("equilibrium_norm")
    if not present(held):
        if f.last:
            words = [part for part in str(last.get("source") or "").split("; ") if part.startswith("norm:")]
            yield "‖w‖* = –: no equilibrium norm; " + (words[0] if words else "see θ*")
        return
    if isinstance(law, str):
        return
    if law.name == ADAM_L2:
        yield second_moment_norm(f)
        return
    basis = "extrapolated from its own norms" if last["norm_basis"] == "extrapolated" else "theory"
    meaning = f"norm at equilibrium, step {last['step']} ({basis})"
    ends = last.get("equilibrium_norm_low"), last.get("equilibrium_norm_high")
    notes = [reserve(f)]
    if law.family:
        made = level_from_norms if last["norm_basis"] == "extrapolated" else level_from_buffers
        steps, result, within, why = made(f, law)
        rests = "± jackknife over the nearest five" if present(ends[0]) else ""
        yield Way(
            "equilibrium_norm", "‖w‖*", meaning, held, steps, result, *ends, within=within, why=why,
            notes=(rests, SMD, *notes),
        )  # fmt: skip
        return
    rate: Any = f.row.get("learning_rate_last")
    gamma = law.gamma(law.x)
    form = f"‖w‖*² = η²dΓ/(x(2−x)), x = ηλ = {given(law.x)}, η = {given(rate)}, d = {f.numel}"
    if law.name == ADAMW:
        lead = math.sqrt(rate**2 * f.numel / (2 * law.x))
        form = f"‖w‖* ≈ √(ηd/(2λ)) = {number(lead)} to leading order, root mean square weight √(η/2λ); " + form
    words = "from the update's correlations as in θ*"
    if law.name == MUON:
        gamma = held**2 * law.x * (2 - law.x) / (rate**2 * f.numel)
        words = "simulated for updates of this shape, read back from the report"
    result = rate * math.sqrt(f.numel * gamma / (law.x * (2 - law.x)))
    yield Way(
        "equilibrium_norm", "‖w‖*", meaning, held, (f"{form}, Γ = {number(gamma, 5)} ({words})",), result, *ends,
        notes=("assumes zero-mean gradients", law.source.rpartition("; ")[2], *notes),
    )  # fmt: skip


def _expected(f: Facts) -> Iterator[Way | str]:
    """E‖w‖ under the recorded schedule."""
    held, found = f.last.get("expected_norm"), f.norms[-1]["weight_norm"] if f.norms else None
    words = next((p for p in str(f.last.get("source") or "").split("; ") if p.startswith("expected norm")), "")
    if not present(held):
        if words:
            yield f"E‖w‖ = –: {words}"
        return
    steps, result, within = next_norm(f)
    ends = f.last.get("expected_norm_low"), f.last.get("expected_norm_high")
    rests = "± scatter of L over the intervals, its drift in it only as scatter" if present(ends[0]) else ""
    yield Way(
        "expected_norm", "E‖w‖", f"expected under the schedule; found {number(found)}", held,
        steps, result, *ends, within=within, why="the last interval alone, leading order" if result else "",
        notes=(rests, words.removeprefix("expected norm: ")),
    )  # fmt: skip


def _turned(f: Facts) -> Iterator[Way | str]:
    """How far it turned between checkpoints, against zero-mean gradients: a reference."""
    last = f.last
    angle: Any = f.norms[-1].get("angle") if f.norms else None
    reference: Any = last.get("diffusion_angle")
    excess = last.get("excess_retention")
    if not present(angle):
        return
    text = f"θₖ = {number(angle)} rad turned since the checkpoint before (measured)"
    if not present(reference) or not present(excess):
        why = next((p for p in str(last.get("source") or "").split("; ") if p.startswith("diffusion")), "")
        yield f"{text}; no reference for it" + (f": {why}" if why and not present(reference) else "")
        return
    form = next((p for p in str(last["source"]).split("; ") if p.startswith("diffusion angle: ")), "")
    yield Way(
        "excess_retention", "Eₖ", "> 0 confinement, < 0 drift between checkpoints; no verdict", excess,
        (
            f"ln(cos θₖ/cos θₖ⁰), θₖ = {number(angle)} rad since the checkpoint before, θₖ⁰ = {number(reference)} rad "
            "if gradients had zero mean (recursion of the update rule)",
        ),
        math.log(math.cos(angle) / math.cos(reference)) if min(math.cos(angle), math.cos(reference)) > 0 else None,
        notes=(form.replace("diffusion angle: ", "θₖ⁰ starts "),),
    )  # fmt: skip


def _standing(f: Facts) -> Iterator[Way | str]:
    """Equilibrium index, and since when the norm is stationary."""
    row, since = f.fit("equilibrium_index"), f.fit("stationary_since")
    if not row:
        return
    if not present(row["value"]):
        yield f"EI = –: no equilibrium index; {row['outcome']}" + (f" ({row['advice']})" if row["advice"] else "")
        return
    steps, result = index_of_units(f, row)
    checked = str(row.get("checks") or "").replace("; ", ", ")
    yield Way(
        "equilibrium_index", "EI", f"equilibrium index (0 at equilibrium, −1 pure decay): {row['outcome']}",
        row["value"], steps, result, row["low"], row["high"], digits=2,
        notes=("± t interval over the blocks" if present(row["low"]) else "", f"checked: {checked}" if checked else ""),
    )  # fmt: skip
    if present(since.get("value")):
        yield f"stationary since step {since['value']:.0f}: {since['method']}"


def _none(row: Row) -> str:
    """Why a level has no interval."""
    return f"no interval: {str(row['advice'] or row['method']).partition(':')[0]}"


def _level(f: Facts) -> Iterator[Way | str]:
    """Mean norm of the stationary stretch, over theory's."""
    row, ratio = f.fit("level"), f.fit("level_ratio")
    if not row:
        return
    if not present(row["value"]):
        yield f"level = –: {row['outcome']}"
        return
    since = f.fit("stationary_since").get("value") or 0
    norms = [r["weight_norm"] for r in f.norms if r["step"] >= since]
    yield Way(
        "level", "level", "norm at which the layer stands", row["value"],
        (f"mean ‖w‖ of {len(norms)} checkpoints from step {since:.0f} on",), sum(norms) / len(norms) if norms else None,
        row["low"], row["high"],
        notes=("± scatter of batch means" if present(row["low"]) else _none(row),),
    )  # fmt: skip
    theory = f.last.get("equilibrium_norm")
    if present(ratio.get("value")) and present(theory):
        yield Way(
            "level_ratio", "level/‖w‖*", "over the norm that theory predicts", ratio["value"],
            (f"{number(row['value'])}/{number(theory)}",), row["value"] / theory, ratio["low"], ratio["high"],
        )  # fmt: skip
