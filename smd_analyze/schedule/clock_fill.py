"""One parameter group's rows from a pool of clocks: Σηλ, and what follows from it for learning rate and decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smd_analyze.schedule.clock_causes import implied_momentum, one_ratio
from smd_analyze.schedule.clock_decay import UpdateRule, sums_of_decay
from smd_analyze.schedule.clock_momentum import MomentumRead, read_momentum
from smd_analyze.schedule.clock_pools import ULP, Pool
from smd_analyze.schedule.clock_readings import Z95, Floats
from smd_analyze.schedule.decay_rules import USUAL
from smd_analyze.schedule.stretches import pooled, stretches

SLACK = 0.01  # relative: the files and a clock must differ by more than that to be reported
MOMENTUM = 0.9  # assumed where the SGD family acted and nothing says with which momentum
SGD_FAMILY = ("sgd", "sgdw")
SUMS = ("sum_decay", "sum_decay_low", "sum_decay_high")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Filled:
    """Rows of one group after a pool of clocks has spoken. Arrays per interval [I].

    `decay`, `low`, `high`: the clocks' Σηλ; `files`: that of files and caller, NaN where unknown. `differs`: the two
    contradict each other, and the clocks' was taken; `used`: it was taken, for whatever reason. `sgd_inferred`,
    `momentum_assumed`: the group's optimizer and momentum come from the clock's kind, and from nowhere.
    `momentum_read`: what the first intervals tell of a momentum that nothing else says.
    """

    rows: tuple[dict[str, Any], ...]
    decay: Floats
    low: Floats
    high: Floats
    files: Floats
    differs: np.ndarray
    used: np.ndarray
    sgd_inferred: bool = False
    momentum_assumed: bool = False
    momentum_read: MomentumRead | None = None


def fill(
    rows: Sequence[Row], pool: Pool, updates: Floats, begins: float, assumed: bool, factor: float = 1.0,
    untrained: bool = False,
) -> Filled:  # fmt: skip
    """Let a pool of clocks speak for a group: where files and caller leave Σηλ open, or where they contradict it.

    Where they agree (intervals overlap, or differ by less than SLACK) the narrower of the two stands; under decoupled
    decay, which a clock measures without any model, it is the clock's if the intervals lie apart: fp32 rounds 1 − ηλ.
    `updates` [I] and `begins`: optimizer steps per interval and before the first one. `assumed`: the pool's tensors are
    not known to be of this group; `factor` is then the group's λ over theirs, 1 if unknown. `untrained`: training
    surely began at the first checkpoint, with an empty momentum buffer.
    """
    inferred = rows[0]["optimizer"] is None and pool.proves_sgd
    files, files_low, files_high = _files(rows)
    implied = implied_momentum(pool.total, files)
    begun = None if implied is not None else _momentum(rows[0], pool, updates, begins, inferred)
    settled = [_with_optimizer(row, inferred, implied, begun, untrained) for row in rows]
    if rows[0]["optimizer"] is None and pool.decoupled:
        for row in settled:
            row["decoupled"] = True
    guessed = any(row["momentum_assumed"] for row in settled)
    rule = update_rule(settled)
    decay, low, high = (factor * v for v in sums_of_decay(pool.total, pool.low, pool.high, updates, begins, rule))
    low = np.fmax(low, 0.0)
    known, read = np.isfinite(files), np.isfinite(decay)
    rounding = ULP * np.nan_to_num(updates)
    slack = SLACK * np.fmax(np.abs(files), decay) + rounding * rule.share
    gap = np.fmax(files_low - high, low - files_high)
    differs = known & read & (gap > slack)
    apart = known & read & (gap > 0) & rule.decoupled
    narrower = known & read & (high - low < files_high - files_low)
    used = read & (~known | differs | apart | narrower)
    if assumed:
        used = read & (~known | differs)
    words = _words(pool, assumed, inferred)
    words += "; " * bool(told_momentum := _momentum_words(settled, begun, guessed)) + told_momentum
    out = []
    for i, row in enumerate(settled):
        new = dict(row)
        if used[i]:
            new |= dict(zip(SUMS, (float(decay[i]), float(low[i]), float(high[i])), strict=True))
            new["source"] = _source(row["source"], words)
        elif read[i]:
            told = f", with momentum {new['momentum']:g}" if rows[i]["momentum"] is None and new["momentum"] else ""
            new["source"] = _source(row["source"], f"clock of {pool.name} agrees{told}")
        out.append(new)
    _follow(out, rows, decay, low, high, used, differs, updates)
    return Filled(tuple(out), decay, low, high, files, differs, used, inferred, guessed, begun)


def at_rest(rows: Sequence[Row], pool: Pool, updates: Floats) -> Filled:
    """Rows of a tensor whose clock stands still: no decay acted on it, whatever files and caller say."""
    files, _, files_high = _files(rows)
    read = np.isfinite(pool.total)
    rule = update_rule([_with_optimizer(row, False) for row in rows])
    high = np.fmax(pool.high, 0.0) * rule.share
    differs = read & np.isfinite(files) & (files > high + ULP * np.nan_to_num(updates)) & (files > 0)
    used = read & ~(files == 0)
    out = []
    for i, row in enumerate(rows):
        new = dict(row)
        if used[i] and (differs[i] or not np.isfinite(files[i])):
            new |= dict(zip(SUMS, (0.0, 0.0, float(high[i])), strict=True)) | {"weight_decay": 0.0}
            new["source"] = _source(row["source"], f"clock of {pool.name}: no decay")
        out.append(new)
    nothing = np.zeros(len(rows))
    return Filled(tuple(out), np.where(read, 0.0, np.nan), nothing, high, files, differs, used)


def update_rule(rows: Sequence[Row]) -> UpdateRule:
    """How the group's optimizer passes decay on to the weights. Unknown optimizers: as the decay acts, no momentum."""
    first = rows[0]
    coupled = first["optimizer"] == "sgd"
    momentum = np.array([row["momentum"] or 0.0 if coupled else 0.0 for row in rows], np.float64)
    dampening = np.array([row["dampening"] or 0.0 for row in rows], np.float64)
    return UpdateRule(
        momentum, np.where(momentum > 0, dampening, 0.0), bool(first["nesterov"]), not coupled,
        first["rate_in_velocity"], not first["momentum_assumed"],
    )  # fmt: skip


def _momentum(row: Row, pool: Pool, updates: Floats, begins: float, inferred: bool) -> MomentumRead | None:
    """What the first intervals tell of the group's momentum, if decay passes through one that nothing else says."""
    if row["momentum"] is not None or not (inferred or row["optimizer"] == "sgd"):
        return None
    form = row["nesterov"] if row["nesterov"] is None else bool(row["nesterov"])
    return read_momentum(pool.total, pool.low, pool.high, updates, begins, form, MOMENTUM)


def _with_optimizer(
    row: Row, inferred: bool, implied: float | None = None, begun: MomentumRead | None = None, untrained: bool = False
) -> dict[str, Any]:
    """The row with SGD where a clock proves its family, and with a momentum where none is known.

    `implied`: the momentum that makes the files' Σηλ and the clock's one. `begun`: the one that the first intervals
    tell; that there is none is assumed unless the run began `untrained`, since a full buffer shows nothing either.
    """
    new = dict(row)
    if inferred:
        new |= {"optimizer": "sgd", "decoupled": False, "nesterov": bool(row["nesterov"])}
    if new["optimizer"] in SGD_FAMILY and new["momentum"] is None:
        new |= {"dampening": new["dampening"] or 0.0, "nesterov": bool(new["nesterov"])}
        if begun is not None:
            sure = begun.sure and (begun.alpha > 0 or untrained)
            new |= {"momentum": begun.alpha, "momentum_assumed": not sure}
            new["nesterov"] = begun.nesterov if begun.sure else new["nesterov"]
        else:
            new |= {"momentum": MOMENTUM if implied is None else implied, "momentum_assumed": implied is None}
    return new


def _files(rows: Sequence[Row]) -> tuple[Floats, Floats, Floats]:
    """Σηλ of files and caller with its ends, NaN where unknown; λ = 0 needs no learning rate."""
    columns = []
    for key in SUMS:
        values = [0.0 if row["weight_decay"] == 0 else row[key] for row in rows]
        columns.append(np.array([np.nan if v is None else v for v in values], np.float64))
    best, low, high = columns
    return best, np.where(np.isfinite(low), low, best), np.where(np.isfinite(high), high, best)


def _follow(
    out: list[dict[str, Any]], rows: Sequence[Row], decay: Floats, low: Floats, high: Floats, used: np.ndarray,
    differs: np.ndarray, updates: Floats,
) -> None:  # fmt: skip
    """Learning rate and λ that follow from the clock's Σηλ: η from a known λ, λ from a known η, else only changes."""
    if not used.any() or rows[0]["decay_rule"] != USUAL:
        return
    rates = np.array([np.nan if row["sum_learning_rate"] is None else row["sum_learning_rate"] for row in rows])
    unknown = np.array([row["learning_rate_first"] is None for row in rows])
    open_decay = used & (differs | np.array([row["weight_decay"] is None for row in rows]))
    one = one_ratio(np.where(open_decay, decay, np.nan), rates)
    per = np.where(np.isfinite(updates), updates, 1.0)
    rate, changes = _levels(decay, low, high, per)
    for i, row in enumerate(rows):
        if not used[i]:
            continue
        if open_decay[i] and rates[i] > 0:
            own = float(rate[i] * per[i] / rates[i])  # of its stretch: what is one number must not look like many
            out[i]["weight_decay"] = own if one is None else one
            out[i]["learning_rate_changes"] = bool(row["learning_rate_changes"]) or (one is None and bool(changes[i]))
        elif open_decay[i]:
            out[i]["weight_decay"] = None
        if not unknown[i]:
            continue
        out[i]["learning_rate_changes"] = bool(changes[i])
        lam = None if open_decay[i] else row["weight_decay"]
        if lam:
            sums = {key.replace("decay", "learning_rate"): out[i][key] / lam for key in SUMS}
            out[i] |= sums | {"source": f"{out[i]['source']}; learning rate from it"}
            if not changes[i] and np.isfinite(updates[i]):
                out[i] |= dict.fromkeys(("learning_rate_first", "learning_rate_last"), float(rate[i]) / lam)


def _levels(decay: Floats, low: Floats, high: Floats, per: Floats) -> tuple[Floats, np.ndarray]:
    """(ηλ per update of each interval, whether it changes there); intervals of one stretch have one ηλ. `per`: updates.

    It changes in intervals that belong to no stretch, and in the first one after a change between two stretches.
    """
    read = np.flatnonzero(np.isfinite(decay))
    rate = decay / per
    size = float(np.nanmax(rate, initial=0.0)) or 1.0
    sd = np.clip((high - low) / (2 * Z95 * per), 1e-5 * size, 10 * size)  # weights that sums of them can hold apart
    out, changes = rate.copy(), np.ones(len(rate), bool)
    for a, b in stretches(rate[read], sd[read]):
        inside = read[a:b]
        if b - a > 1 or len(read) == 1:
            out[inside] = pooled(rate[inside], sd[inside], per[inside])[0]
            changes[inside] = False
            changes[inside[0]] = a > 0 and not changes[read[a - 1]]
    return out, changes


def _words(pool: Pool, assumed: bool, inferred: bool) -> str:
    parts = [f"clock of {pool.name}" + (", assumed to hold here" if assumed else "")]
    return "; ".join(parts + ["SGD inferred from it"] * inferred)


def _momentum_words(rows: Sequence[Row], begun: MomentumRead | None, guessed: bool) -> str:
    """Where the momentum comes from, "" if files or caller say it."""
    if guessed:
        return f"momentum {rows[0]['momentum']:.3g} assumed"
    if begun is None:
        return ""
    name = f"{'Nesterov ' if begun.nesterov else ''}momentum {begun.alpha:g}" if begun.alpha else "no momentum"
    return f"{name}, read off steps {rows[0]['step_from']} to {rows[begun.until]['step_to']}"


def _source(before: str, words: str) -> str:
    return words if before == "unknown" else f"{before}; {words}"
