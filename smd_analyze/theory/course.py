"""The schedule as theory reads it: arrays per parameter group, aligned with the checkpoints."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from smd_analyze.records.group import Group
from smd_analyze.records.schedule import Schedule
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.laws import Law, law_of, saved_direction_was_update

INVARIANT = ("invariant", "jointly invariant")
KNOWN = 0.1  # width, over its value, up to which a learning rate is known well enough for an equilibrium
PIECES = 64  # an interval whose learning rate changes is cut into at most this many pieces of constant η
NUMBERS = (
    "sum_learning_rate", "sum_decay", "sum_decay_low", "sum_decay_high", "momentum", "dampening", "beta1", "beta2",
    "weight_decay", "learning_rate_first", "learning_rate_last",
)  # fmt: skip


@dataclass(frozen=True)
class Course:
    """What acted on one parameter group. Arrays [T]: entry i is the interval that ends at checkpoint i; entry 0 is NaN.

    `steps`: as recorded; `direct`: they are optimizer steps. `lengths`: optimizer steps per interval, NaN if unknown;
    `made`: optimizer steps made at each checkpoint. `laws[i]` is a Law or the reason why there is none.
    `rate_*`: learning rates as the gradient felt them (times 1 − dampening), NaN where unknown; if no learning rate is
    known at all, ηλ stands in for η (`rate_known` False) and L is in units of λ². `raw_*`: η as in the file.
    `decay`, `_low`, `_high`: Σηλ; `decay_first`, `_last`: ηλ of one update; `weight_decay`: λ. `momentum`: α or β₁.
    `changes`: the learning rate changed within the interval. `uncertain`: it did, and which one made the last update is
    not known to KNOWN (`decay_last` is NaN). `raw_low`, `raw_high` bound `raw_last`.
    `buffered`: see laws.saved_direction_was_update.
    """

    steps: Floats
    direct: bool
    laws: tuple[Law | str, ...]
    lengths: Floats
    made: Floats
    rate_mean: Floats
    rate_first: Floats
    rate_last: Floats
    raw_first: Floats
    raw_last: Floats
    raw_low: Floats
    raw_high: Floats
    rate_known: bool
    decay: Floats
    decay_low: Floats
    decay_high: Floats
    decay_first: Floats
    decay_last: Floats
    weight_decay: Floats
    momentum: Floats
    beta2: Floats
    changes: np.ndarray
    uncertain: np.ndarray
    buffered: np.ndarray

    def update_at(self, i: int) -> int:
        """The interval whose numbers made checkpoint i: its own, or the first one for the first checkpoint."""
        return i if i else 1

    def trouble(self, i: int) -> str:
        """Why there is no theory for interval i; "" if there is (its numbers may still be NaN)."""
        law = self.laws[i]
        if isinstance(law, str):
            return law
        if np.isnan(self.momentum[i]):
            return f"{law.momentum_word} unknown"
        return ""

    def decay_at(self, i: int) -> float:
        """x = ηλ [1/step] of the update that made checkpoint i; NaN where unknown."""
        return float(self.decay_last[i] if i else self.decay_first[1])

    def rate_at(self, i: int) -> float:
        """Learning rate of the update that made checkpoint i, as the gradient felt it; NaN where unknown."""
        j = self.update_at(i)
        rate = self.rate_last[j] if i else self.rate_first[j]
        if self.uncertain[i]:
            return float("nan")
        return float(rate if np.isfinite(rate) else self.rate_mean[j])

    def pieces(self, i: int) -> tuple[Floats, Floats, Floats]:
        """Interval i as pieces of constant learning rate: (η, x, number of steps), with the recorded sums kept exactly.

        An interval that changes between constant neighbours is a step drop; any other change is a smooth curve from
        the first to the last learning rate.
        """
        k, mean, x = self.lengths[i], self.rate_mean[i], self.decay[i] / self.lengths[i]
        first, last = self.rate_first[i], self.rate_last[i]
        plain = np.array([mean]), np.array([x]), np.array([k])
        if not self.changes[i] or not np.isfinite(first) or not np.isfinite(last) or first == last or mean <= 0:
            return plain
        share = (mean - last) / (first - last)  # of the way, how much the first value holds on average
        if not 0.02 < share < 0.98 or k < 2:
            return plain
        neighbours = [j for j in (i - 1, i + 1) if 1 <= j < len(self.steps)]
        if neighbours and not any(self.changes[j] for j in neighbours):
            counts, rates = k * np.array([share, 1 - share]), np.array([first, last])
        else:
            m = int(min(k, PIECES))
            edges = np.linspace(0, 1, m + 1)
            power = 1 / share - 1  # last + (first−last)(1−u)^power has the right mean
            integral = -((1 - edges) ** (power + 1)) / (power + 1)
            rates = last + (first - last) * np.diff(integral) * m
            counts = np.full(m, k / m)
        return rates, rates * (x / mean), counts


def course_of(schedule: Schedule, parameter_group: str, steps: tuple[int, ...]) -> Course:
    """Align the rows of one parameter group with the checkpoints' steps; intervals without a row are NaN."""
    frame = schedule.table.filter(pl.col("parameter_group") == parameter_group)
    rows = {(row["step_from"], row["step_to"]): row for row in frame.iter_rows(named=True)}
    found = [rows.get(pair) for pair in zip(steps[:-1], steps[1:], strict=True)]
    column: dict[str, Floats] = {}
    for name in NUMBERS:
        values = [np.nan] + [np.nan if row is None or row[name] is None else float(row[name]) for row in found]
        column[name] = np.array(values)
    names = ["no schedule for this interval" if row is None else None for row in found]
    laws = [
        gap or law_of(row["optimizer"], row["nesterov"], row["decoupled"]) if row else str(gap)
        for row, gap in zip(found, names, strict=True)
    ]
    coupled = np.array([False] + [isinstance(law, Law) and law.coupled for law in laws])
    adam = np.array([False] + [isinstance(law, Law) and law.power == 2 for law in laws])
    direct = schedule.step_unit == "optimizer steps"
    lengths = np.diff(np.array(steps, np.float64), prepend=np.nan)
    changes = np.array([False] + [bool(row and row["learning_rate_changes"]) for row in found])
    bounds = np.array([column["learning_rate_last"]] * 2)
    for i, row in enumerate(found, start=1):
        ends = (row or {}).get("learning_rate_last_low"), (row or {}).get("learning_rate_last_high")
        if None not in ends:
            bounds[:, i] = ends
    uncertain = bounds[1] - bounds[0] > KNOWN * bounds[1]
    per_step = 1.0 if direct else _updates_per_step(column, lengths, changes)
    lengths = lengths * per_step

    sums, rate_last = column["sum_learning_rate"], column["learning_rate_last"]
    decay = np.where(np.isnan(column["sum_decay"]), column["weight_decay"] * sums, column["sum_decay"])
    # λ = 0 needs no learning rate
    decay = np.where(np.isnan(decay) & (column["weight_decay"] == 0), 0.0, decay)
    rate_known = bool((np.isfinite(sums) | np.isfinite(rate_last)).any())
    damping = 1 - np.nan_to_num(column["dampening"], nan=0.0)
    slowed = np.where(coupled, damping, 1.0)
    decay = decay * slowed
    mean, first, last = (damping * v for v in (sums / lengths, column["learning_rate_first"], rate_last))
    # λ in force: what the sums say wins over the coefficient
    lam = np.divide(decay, sums, out=slowed * column["weight_decay"], where=sums > 0)
    once = lam * column["learning_rate_first"], lam * rate_last
    decay_first, decay_last = (np.where(np.isnan(x), decay / lengths, x) for x in once)
    decay_last = np.where(uncertain, np.nan, decay_last)
    if not rate_known:  # nothing but the decay is known: ηλ stands in for η
        mean = first = last = np.where(decay > 0, decay / lengths, np.nan)
    return Course(
        steps=np.array(steps, np.float64),
        direct=direct,
        laws=("", *laws),
        lengths=lengths,
        made=np.array(steps, np.float64) * per_step,
        rate_mean=mean,
        rate_first=first,
        rate_last=last,
        raw_first=column["learning_rate_first"],
        raw_last=rate_last,
        raw_low=bounds[0],
        raw_high=bounds[1],
        rate_known=rate_known,
        decay=decay,
        decay_low=column["sum_decay_low"] * slowed,
        decay_high=column["sum_decay_high"] * slowed,
        decay_first=decay_first,
        decay_last=decay_last,
        weight_decay=lam,
        momentum=np.where(adam, column["beta1"], column["momentum"]),
        beta2=column["beta2"],
        changes=changes,
        uncertain=uncertain,
        buffered=np.array(
            [False] + [bool(row) and saved_direction_was_update(row["optimizer"], row["nesterov"]) for row in found]
        ),
    )


def _updates_per_step(column: dict[str, Floats], lengths: Floats, changes: np.ndarray) -> float:
    """Optimizer steps per recorded step (epoch, save), from sums and values of the learning rate; NaN if unknown."""
    middle = (column["learning_rate_first"] + column["learning_rate_last"]) / 2
    ratios = np.divide(
        column["sum_learning_rate"], middle * lengths, out=np.full(len(lengths), np.nan), where=middle * lengths > 0
    )
    steady = ratios[np.isfinite(ratios) & ~changes]
    known = steady if len(steady) else ratios[np.isfinite(ratios)]
    return float(np.median(known)) if len(known) else np.nan


def parameter_group_of(group: Group, schedule: Schedule) -> str | None:
    """The parameter group of a group's members in the schedule; None if they belong to several that differ."""
    names = list(dict.fromkeys(schedule.parameter_group.get(m.parameter, group.parameter_group) for m in group.members))
    first, *others = names or [group.parameter_group]
    return first if all(_same(schedule.table, first, other) for other in others) else None


def _same(table: pl.DataFrame, a: str, b: str) -> bool:
    """Whether two parameter groups have one optimizer, learning rate, decay and momentum all along."""
    rows = [
        table.filter(pl.col("parameter_group") == name).sort("step_from").drop("parameter_group", "source")
        for name in (a, b)
    ]
    return rows[0].height > 0 and rows[0].equals(rows[1])


def standing(group: Group) -> str:
    """How far theory may be taken for a group, in words; "" where it holds without reserve."""
    if group.status not in INVARIANT:
        known = "not scale-invariant" if group.status == "not invariant" else "not known to be scale-invariant"
        return f"reference only: {known}"
    return "if invariant" if group.evidence == "guessed" else ""
