"""One layer, from inputs through formulas to numbers: what `--explain LAYER` prints.

Numbers are those of the report's tables. Where a formula is shown with numbers put in, its result stands beside what
the table holds; it is worked out here for display alone, for the layer as a whole (tables summarise its units).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from typing import Any

import polars as pl

from smd_analyze.errors import UsageError
from smd_analyze.records.report import Report
from smd_analyze.views.layers import Row
from smd_analyze.views.stages import explain_stages
from smd_analyze.views.text import MISSING, given, interval, number, present

MILLI = 1e3
ADAMS = ("adam", "adamw", "nadam")


def explain_layer(report: Report, layer: str) -> str:
    """The whole reasoning for one layer, as plain text.

    `layer` is a group, or a parameter that belongs to one.

    Raises:
        UsageError: the report has no such layer; names that are near.
    """
    name = _group(report, layer)
    facts = _first(report.groups, name) | _first(report.layers, name)
    last = _first(report.predictions.filter(pl.col("group") == name).tail(1), name)
    rows = report.schedule.filter(pl.col("parameter_group").is_in(_owners(report, facts)))
    parts = [
        _title(name, facts),
        _section("Inputs", [*_norms(report, name), *_schedule(rows)]),
        _section("Angular update at equilibrium θ*", _equilibrium(rows, last, facts)),
        _section("Angular update implied by the norms θ₁", _implied(report, name, rows)),
        _section("Angular update measured θ₁", _measured(report, name)),
        _section("Weight norm against theory", _theory(last, facts)),
        _section("Time to equilibrium", explain_stages(report, facts)),
        _section("Estimates", _fits(report, name)),
        _section("State", [str(facts.get("state") or MISSING), *([str(a)] if (a := facts.get("advice")) else [])]),
    ]
    return "\n\n".join(part for part in parts if part)


def _group(report: Report, layer: str) -> str:
    names = report.groups["group"].to_list()
    if layer in names:
        return layer
    owners = report.parameters.filter(pl.col("parameter") == layer)["group"].drop_nulls().unique().to_list()
    owners = [name for name in owners if name]
    if len(owners) == 1:
        return owners[0]
    near = owners or difflib.get_close_matches(layer, names, 5, 0.3) or names[:5]
    raise UsageError(f"no layer {layer!r} in this report; there are for example {', '.join(near)}")


def _owners(report: Report, facts: Row) -> list[str]:
    known = set(report.schedule["parameter_group"].to_list()) if report.schedule.height else set()
    text = str(facts.get("parameter_group") or "")
    return [text] if text in known else [name for name in text.split(", ") if name in known]


def _first(table: pl.DataFrame, name: str) -> dict[str, Any]:
    return next(table.filter(pl.col("group") == name).iter_rows(named=True), {})


def _title(name: str, facts: Row) -> str:
    lines = [name, f"  {facts['status']} ({facts['evidence']}), granularity {facts['granularity'] or MISSING}, "
                   f"{facts['units']} units, {facts['numel']} elements"]  # fmt: skip
    if facts.get("reason"):
        lines.append(f"  why: {facts['reason']}")
    return "\n".join(lines)


def _section(title: str, lines: Iterator[str] | list[str]) -> str:
    found = list(lines)
    return "\n".join([title, *(f"  {line}" for line in found)]) if found else ""


def _norms(report: Report, name: str) -> Iterator[str]:
    rows = report.statistics.filter((pl.col("group") == name) & pl.col("weight_norm").is_not_null()).sort("step")
    for row in rows.tail(2).iter_rows(named=True):
        angle = f", angle from the previous checkpoint {number(row['angle'])} rad" if present(row["angle"]) else ""
        yield f"step {row['step']}: ‖w‖ = {number(row['weight_norm'], 6)}{angle}"
    if not rows.height:
        yield "no checkpoint holds this layer's weights"


def _schedule(rows: pl.DataFrame) -> Iterator[str]:
    if not rows.height:
        yield "schedule unknown: no learning rate and weight decay for this layer's parameter group"
        return
    row = rows.row(-1, named=True)
    words = [str(row["optimizer"] or "optimizer unknown")]
    symbols = ("learning_rate_last", "η"), ("weight_decay", "λ"), ("momentum", "α"), ("beta1", "β₁"), ("beta2", "β₂")
    words += [f"{symbol} = {given(row[key])}" for key, symbol in symbols if present(row.get(key))]
    words += [word for key, word in (("nesterov", "Nesterov"), ("decoupled", "decoupled decay")) if row.get(key)]
    where = f"steps {row['step_from']} to {row['step_to']}, parameter group {row['parameter_group']!r}"
    yield f"{where}: {', '.join(words)}"
    ends = (row.get("sum_decay_low"), row.get("sum_decay_high"))
    yield f"Ση = {number(row['sum_learning_rate'])}, Σηλ = {interval(row['sum_decay'], *ends, digits=4)}"
    yield f"source: {row['source'] or MISSING}"


def _momentum(row: Row) -> float | None:
    return row.get("beta1") if row["optimizer"] in ADAMS else row.get("momentum")


def _symbol(row: Row) -> str:
    return "β₁" if row["optimizer"] in ADAMS else "α"


def _equilibrium(rows: pl.DataFrame, last: Row, facts: Row) -> Iterator[str]:
    if facts["status"] not in ("invariant", "jointly invariant"):
        yield f"status {facts['status']}: theory is a reference only"
    if rows.height:
        row = rows.row(-1, named=True)
        rate, decay, a = row["learning_rate_last"], row["weight_decay"], _momentum(row)
        if rate is not None and decay and a is not None:
            damping = row.get("dampening") or 0.0
            x = rate * (1 - damping) * decay
            if damping:
                yield f"dampening {given(damping)}: η stands for {given(rate)} × (1 − {given(damping)})"
            product = f"{given(rate * (1 - damping))} × {given(decay)} = {given(x)}"
            yield f"ηλ = {product} per step, {_symbol(row)} = {given(a)}"
            yield from _angle_formula(row, x, a)
    if present(last.get("equilibrium_angular_update")):
        held = number(last["equilibrium_angular_update"], 4, MILLI)
        yield f"the report holds {held} mrad/step at step {last['step']}"
    yield f"source: {last.get('source') or 'no prediction for this layer'}"


def _angle_formula(row: Row, x: float, a: float) -> Iterator[str]:
    """The closed form of the row's optimizer with its numbers (‖w‖ and gradients do not enter)."""
    name, decoupled, xs, momentum = row["optimizer"], bool(row.get("decoupled")), given(x), given(a)
    if name == "sgd" and row.get("nesterov"):
        value = math.sqrt(2 * x * (1 - a) * ((1 + a) ** 2 + a**4 / (1 - a**2)))
        text = "θ* ≈ √(2ηλ(1−α)[(1+α)² + α⁴/(1−α²)])"
    elif name in ("sgd", "sgdw") and (decoupled or name == "sgdw"):
        value = math.acos((1 - x + a) / (1 + (1 - x) * a))
        text = f"θ* = arccos((1−ηλ+α)/(1+(1−ηλ)α)) = arccos((1−{xs}+{momentum})/(1+(1−{xs})×{momentum}))"
    elif name == "sgd":
        value = math.acos(1 - x / (1 + a))
        text = f"θ* = arccos(1 − ηλ/(1+α)) = arccos(1 − {xs}/(1+{momentum}))"
    elif name == "adamw" or (name == "adam" and decoupled):
        value = math.sqrt(2 * x * (1 - a) / (1 + a))
        text = f"θ* ≈ √(2ηλ(1−β₁)/(1+β₁)) = √(2×{xs}×(1−{momentum})/(1+{momentum}))"
    else:
        yield f"no closed form is shown here for {name or 'an unknown optimizer'}"
        return
    yield f"{text} = {number(value, 4, MILLI)} mrad/step"


def _implied(report: Report, name: str, rows: pl.DataFrame) -> Iterator[str]:
    held = report.angular_updates.filter((pl.col("group") == name) & (pl.col("method") == "norms")).sort("step_to")
    held = held.filter(pl.col("angular_update").is_not_null())
    if not held.height:
        yield "not implied: two norms and the schedule between them are needed"
        return
    row = held.row(-1, named=True)
    start, stop = row["step_from"], row["step_to"]
    between = rows.filter((pl.col("step_from") >= start) & (pl.col("step_to") <= stop))
    norms = dict(report.statistics.filter(pl.col("group") == name).select("step", "weight_norm").iter_rows())
    first, last = norms.get(start), norms.get(stop)
    yield "θ₁² = ζ(2x + ln(n₂/n₁)/k), n = ‖w‖², an identity: against θ* it tells whether the norm is stationary"
    if between.height and first and last and between["sum_decay"].null_count() == 0:
        schedule = between.row(-1, named=True)
        a, k = _momentum(schedule), stop - start
        if a is not None and k > 0 and not schedule.get("nesterov"):
            coupled = schedule["optimizer"] == "sgd" and not schedule.get("decoupled")
            x = float(between["sum_decay"].sum()) / k / (1 - a if coupled else 1.0)
            slope, share = 2 * math.log(last / first) / k, (1 - a) / (1 + a)
            over = "/(1−α)" if coupled else ""
            sym = _symbol(schedule)
            yield f"ζ = (1−{sym})/(1+{sym}) = {number(share)}, x = Σηλ/k{over} = {number(x)}"
            yield f"ln(n₂/n₁)/k = {number(slope)}"
            square = share * (2 * x + slope)
            if square >= 0:
                yield f"whole layer: θ₁ = {number(math.sqrt(square), 4, MILLI)} mrad/step, steps {start} to {stop}"
    yield f"the report holds {_angle(row)} (root mean square over units)"


def _measured(report: Report, name: str) -> Iterator[str]:
    held = report.angular_updates.filter((pl.col("group") == name) & (pl.col("method") != "norms")).sort("step_to")
    words = {"consecutive": "checkpoints one step apart", "buffer": "the last step rebuilt from the optimizer's state"}
    for row in held.tail(3).iter_rows(named=True):
        note = f"; {row['note']}" if row.get("note") else ""
        yield f"step {row['step_to']}, {words.get(row['method'], row['method'])}: {_angle(row)}{note}"
    if not held.height:
        yield "not measured: it needs the optimizer's state in the checkpoints, or two checkpoints one step apart"


def _angle(row: Row) -> str:
    ends = row["angular_update_low"], row["angular_update_high"]
    return f"{interval(row['angular_update'], *ends, MILLI, 4)} mrad/step"


def _theory(last: Row, facts: Row) -> Iterator[str]:
    if not last:
        return
    ends = last.get("equilibrium_norm_low"), last.get("equilibrium_norm_high")
    basis = f" ({last['norm_basis']})" if last.get("norm_basis") else ""
    yield f"equilibrium ‖w‖* = {interval(last['equilibrium_norm'], *ends, digits=4)}{basis}"
    found = number(facts.get("weight_norm"))
    yield f"expected under the schedule E‖w‖ = {number(last['expected_norm'])}, found {found}"
    yield f"half-lives of the relaxation passed: {number(last['half_lives'], 3)}"


def _fits(report: Report, name: str) -> Iterator[str]:
    chosen = report.fits.filter((pl.col("group") == name) & pl.col("unit").is_null())
    for row in chosen.iter_rows(named=True):
        words = "; ".join(str(row[key]) for key in ("method", "outcome") if row[key])
        value = interval(row["value"], row["low"], row["high"], digits=4)
        yield f"{row['quantity']} = {value}" + (f" ({words})" if words else "")
