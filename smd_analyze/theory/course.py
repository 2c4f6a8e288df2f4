"""The schedule as theory reads it: arrays per parameter group, aligned with the checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from smd_analyze.records.schedule import Schedule
from smd_analyze.theory import adam_l2
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.laws import Law, law_of, saved_direction_was_update

KNOWN = 0.1  # width, over its value, up to which a learning rate is known well enough for an equilibrium
NO_ROW = "no schedule for this interval"
USUAL = "learning rate × weight decay"  # the schedule's `decay_rule` that needs no word
PIECES = 64  # an interval whose learning rate changes is cut into at most this many pieces of constant η
NUMBERS = (
    "sum_learning_rate", "sum_decay", "sum_decay_low", "sum_decay_high", "momentum", "dampening", "beta1", "beta2",
    "weight_decay", "learning_rate_first", "learning_rate_last",
)  # fmt: skip


@dataclass(frozen=True)
class Course:
    """What acted on one parameter group. Arrays [T]: entry i is the interval that ends at checkpoint i; entry 0 is NaN.

    A lone checkpoint has T = 2: its row of the schedule, if there is one, is entry 1 and tells of its own update.
    `steps`: as recorded; `direct`: they are optimizer steps. `lengths`: optimizer steps per interval, NaN if unknown;
    `made`: optimizer steps made at each checkpoint. `laws[i]` is a Law or the reason why there is none.
    `rate_*`: learning rates as the gradient felt them (times 1 − dampening), NaN where unknown; if no learning rate is
    known at all, ηλ stands in for η (`rate_known` False) and L is in units of λ². `raw_*`: η as in the file.
    `decay`, `_low`, `_high`: Σηλ; `decay_first`, `_last`: ηλ of one update; `weight_decay`: λ. `momentum`: α or β₁.
    `exponent`: ηλ goes as this power of η within an interval (1 as usual, 0 for decay that η does not scale, 2 AdamC).
    `in_velocity`: the velocity holds the learning rate (Keras, TF). `assumed`: what the numbers rest on, in words.
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
    exponent: Floats
    in_velocity: np.ndarray
    assumed: tuple[str, ...]

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
        k, x = self.lengths[i], self.decay[i] / self.lengths[i]
        rates, counts = self._rates(i)
        if len(rates) == 1:
            return rates, np.array([x]), counts
        shape = rates ** self.exponent[i]
        return rates, shape * (x * k / (shape * counts).sum()), counts

    def _rates(self, i: int) -> tuple[Floats, Floats]:
        """Learning rates of the pieces of interval i, and how many steps each lasts."""
        k, mean, first, last = self.lengths[i], self.rate_mean[i], self.rate_first[i], self.rate_last[i]
        plain = np.array([mean]), np.array([k])
        if not self.changes[i] or not np.isfinite(first) or not np.isfinite(last) or first == last or mean <= 0:
            return plain
        share = (mean - last) / (first - last)  # of the way, how much the first value holds on average
        if not 0.02 < share < 0.98 or k < 2:
            return plain
        neighbours = [j for j in (i - 1, i + 1) if 1 <= j < len(self.steps)]
        if neighbours and not any(self.changes[j] for j in neighbours):
            return np.array([first, last]), k * np.array([share, 1 - share])
        m = int(min(k, PIECES))
        edges = np.linspace(0, 1, m + 1)
        power = 1 / share - 1  # last + (first−last)(1−u)^power has the right mean
        integral = -((1 - edges) ** (power + 1)) / (power + 1)
        return last + (first - last) * np.diff(integral) * m, np.full(m, k / m)


def course_of(
    schedule: Schedule, parameter_group: str, steps: tuple[int, ...], shape: tuple[int, int] | None = None
) -> Course:
    """Align the rows of one parameter group with the checkpoints' steps; intervals without a row are NaN.

    `shape`: rows and columns of the group's matrix, for optimizers whose update depends on it. A lone checkpoint takes
    the row from its step to its step.
    """
    lone = len(steps) == 1
    steps = steps * 2 if lone else steps
    frame = schedule.table.filter(pl.col("parameter_group") == parameter_group)
    rows = {(row["step_from"], row["step_to"]): row for row in frame.iter_rows(named=True)}
    found = [rows.get(pair) for pair in zip(steps[:-1], steps[1:], strict=True)]
    column: dict[str, Floats] = {}
    for name in NUMBERS:
        values = [np.nan] + [np.nan if row is None or row[name] is None else float(row[name]) for row in found]
        column[name] = np.array(values)
    laws = [_law(row, shape) if row else NO_ROW for row in found]
    coupled = np.array([False] + [isinstance(law, Law) and law.coupled for law in laws])
    adam = [law == adam_l2.SOURCE or (isinstance(law, Law) and law.momentum_word == "beta1") for law in laws]
    if lone:
        known = np.isfinite(column["learning_rate_last"])
        column["learning_rate_first"] = np.where(known, column["learning_rate_last"], column["learning_rate_first"])
    direct = schedule.step_unit == "optimizer steps"
    lengths = np.diff(np.array(steps, np.float64), prepend=np.nan)
    lengths[lengths == 0] = np.nan  # a lone checkpoint
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
    exponent = np.array([1.0] + [_exponent((row or {}).get("decay_rule")) for row in found])
    usual = np.array([True] + [(row or {}).get("decay_rule") in (None, "", USUAL) for row in found])
    configured = np.where(usual, column["weight_decay"], np.nan)
    decay = np.where(np.isnan(column["sum_decay"]), configured * sums, column["sum_decay"])
    # λ = 0 needs no learning rate
    decay = np.where(np.isnan(decay) & (column["weight_decay"] == 0), 0.0, decay)
    rate_known = bool((np.isfinite(sums) | np.isfinite(rate_last)).any())
    damping = 1 - np.nan_to_num(column["dampening"], nan=0.0)
    slowed = np.where(coupled, damping, 1.0)
    decay = decay * slowed
    mean, first, last = (damping * v for v in (sums / lengths, column["learning_rate_first"], rate_last))
    # λ in force: what the sums say wins over the coefficient
    lam = np.divide(decay, sums, out=slowed * configured, where=sums > 0)
    once = lam * column["learning_rate_first"], lam * rate_last
    alone = np.where(np.isnan(decay), column["weight_decay"], decay / lengths)
    once = (np.where(exponent == 0, alone, x) for x in once)
    decay_first, decay_last = (np.where(np.isnan(x), decay / lengths, x) for x in once)
    decay_last = np.where(uncertain, np.nan, decay_last)
    if not rate_known:  # nothing but the decay is known: ηλ stands in for η
        mean = first = last = np.where(decay > 0, decay / lengths, np.nan)
    course = Course(
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
        momentum=np.where([False, *adam], column["beta1"], column["momentum"]),
        beta2=column["beta2"],
        changes=changes,
        uncertain=uncertain,
        buffered=np.array(
            [False] + [bool(row) and saved_direction_was_update(row["optimizer"], row["nesterov"]) for row in found]
        ),
        exponent=exponent,
        in_velocity=np.array([False] + [bool((row or {}).get("rate_in_velocity")) for row in found]),
        assumed=("", *(_assumed(row) if row else "" for row in found)),
    )
    return _with_square(course) if (exponent == 2).any() else course


def _law(row: Mapping[str, Any], shape: tuple[int, int] | None) -> Law | str:
    """The law of one row of the schedule."""
    return law_of(
        row["optimizer"], row["nesterov"], row["decoupled"], beta2=row["beta2"], shape=shape,
        decay_rule=row.get("decay_rule"), adjustment=row.get("adjust_lr"),
    )  # fmt: skip


def _exponent(rule: str | None) -> float:
    """The power of η that the decay per step goes with, by the schedule's `decay_rule`."""
    if "alone" in (rule or ""):
        return 0.0
    return 2.0 if "²" in (rule or "") else 1.0


def _with_square(course: Course) -> Course:
    """The decay of single updates where it goes as η²."""
    first, last = course.decay_first.copy(), course.decay_last.copy()
    for i in np.flatnonzero(course.exponent == 2):
        rates, counts = course._rates(int(i))
        scale = course.decay[i] / (rates**2 * counts).sum()
        first[i], last[i] = scale * course.rate_first[i] ** 2, scale * course.rate_last[i] ** 2
    return replace(course, decay_first=first, decay_last=np.where(course.uncertain, np.nan, last))


def _assumed(row: Mapping[str, Any]) -> str:
    """What is assumed in a row of the schedule, in its own words; "" if nothing."""
    words = [part for part in (row["source"] or "").split("; ") if "assum" in part]
    if row.get("momentum_assumed") and not any("momentum" in part for part in words):
        words.append(f"momentum {row['momentum']:g} assumed" if row["momentum"] is not None else "momentum assumed")
    return "; ".join(words)


def _updates_per_step(column: dict[str, Floats], lengths: Floats, changes: np.ndarray) -> float:
    """Optimizer steps per recorded step (epoch, save), from sums and values of the learning rate; NaN if unknown."""
    middle = (column["learning_rate_first"] + column["learning_rate_last"]) / 2
    ratios = np.divide(
        column["sum_learning_rate"], middle * lengths, out=np.full(len(lengths), np.nan), where=middle * lengths > 0
    )
    steady = ratios[np.isfinite(ratios) & ~changes]
    known = steady if len(steady) else ratios[np.isfinite(ratios)]
    return float(np.median(known)) if len(known) else np.nan
