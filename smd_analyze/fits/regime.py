"""What the schedule says of one group, interval by interval, in the numbers that fits need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from smd_analyze.records.group import Group
from smd_analyze.records.schedule import Schedule

SAME = 1e-6
KNOWN = 0.1  # width, over its value, up to which a learning rate counts as known
MIXED = "members differ in learning rate or weight decay: no joint theory"
COUPLED = ("sgd",)
DECOUPLED = ("sgdw", "adamw", "lion", "muon")
MOMENTUM = {"adamw": "beta1", "lion": "beta2"}  # the column that says how long one gradient is remembered
NAMELESS = "optimizer unknown"
REMEMBERED = 10.0  # optimizer steps that an unknown optimizer with decoupled decay remembers a gradient (β₁ = 0.9)
CLOCKED = 0.02  # by which the rate of a clock may differ between intervals at one learning rate
FOURTH_POWER = ("sgd", "sgdw")  # ‖w‖⁴ relaxes linearly; for adamw, lion and muon it is ‖w‖²


@dataclass(frozen=True, eq=False)  # equal only to itself: groups share one, and what follows from it
class Regime:
    """The schedule of one group. Arrays are per interval between consecutive `steps`; NaN where not known.

    `decay` is Σ x_e: the decay of the weights over the interval, momentum included (Σ ηλ(1−d)/(1−α) for decay in the
    gradient under SGD with dampening d, Σ ηλ for decoupled decay). `rate_first`, `rate_last` are learning rates,
    `uncertain`: which one made the interval's last update is not known. `located`: Σ η is known to 1 %, or but for a
    single update. `updates`: optimizer steps. `gap` says in words what is missing ("" if nothing is).
    `rate_known` False: no learning rate is known, decay clocks alone tell the decay; the decay of one update then
    stands in for the learning rates, which it is proportional to while λ stays. `momentum` is β₁ of AdamW, β₂ of Lion.
    """

    steps: np.ndarray
    updates: np.ndarray
    decay: np.ndarray
    rate_sum: np.ndarray
    rate_first: np.ndarray
    rate_last: np.ndarray
    uncertain: np.ndarray
    located: np.ndarray
    changes: np.ndarray
    weight_decay: np.ndarray
    momentum: np.ndarray
    dampening: np.ndarray
    beta2: np.ndarray
    optimizer: str
    nesterov: bool
    rate_known: bool
    momentum_assumed: bool
    gap: str

    @property
    def power(self) -> int:
        """Of the norm that relaxes linearly: ‖w‖⁴ in the SGD family, ‖w‖² under AdamW, Lion and Muon."""
        return 4 if self.optimizer in FOURTH_POWER else 2

    @property
    def amplification(self) -> np.ndarray:
        """x_e over the decay of one update, 1/(1−α) where decay passes through the momentum [intervals]."""
        coupled = self.optimizer in COUPLED
        return (1 - self.dampening) / (1 - self.momentum) if coupled else np.ones_like(self.decay)

    @property
    def momentum_number(self) -> float:
        """A = αηλ/(1−α)², the largest of the last stretch of constant learning rate (of the last half without one).

        0 unless decay passes through the momentum; NaN if unknown.
        """
        if self.optimizer not in COUPLED or not len(self.decay):
            return 0.0
        start = self.final_stretch()
        start = start if start < len(self.decay) else len(self.decay) // 2
        with np.errstate(divide="ignore", invalid="ignore"):
            number = (self.momentum / (1 - self.momentum) * self.decay / self.updates)[start:]
        number = number[np.isfinite(number)]
        return float(number.max()) if len(number) else np.nan

    @property
    def no_decay(self) -> bool:
        """Weight decay is known and 0 throughout."""
        known = len(self.weight_decay) > 0
        return known and bool(np.all(self.weight_decay == 0) or np.all(self.decay == 0))

    @property
    def decay_alone(self) -> bool:
        """The optimizer is not known, but that its decay is decoupled: Σ x_e = Σηλ whatever it is, and nothing more."""
        return self.gap == NAMELESS and bool(np.isfinite(self.decay).any())

    @property
    def smear(self) -> float:
        """1/(1 − α): optimizer steps over which momentum spreads one gradient."""
        if self.decay_alone:
            return REMEMBERED
        momentum = self.momentum[np.isfinite(self.momentum)]
        return round(1.0 / (1.0 - momentum[-1]), 9) if len(momentum) else 1.0

    def final_stretch(self) -> int:
        """Index of the first interval of the last stretch with constant learning rate, decay and momentum.

        len(decay) where the last interval itself changes.
        """
        n = len(self.decay)
        start = n
        for i in range(n - 1, -1, -1):
            if self.changes[i] or (i < n - 1 and not self.same(i, i + 1)):
                break
            start = i
        return start

    def same(self, i: int, j: int) -> bool:
        """Whether the end of interval i and the start of j have one learning rate, decay and momentum."""
        pairs = (
            (self.rate_last[i], self.rate_first[j]),
            (self.weight_decay[i], self.weight_decay[j]),
            (self.momentum[i], self.momentum[j]),
        )
        return all(
            a == b or abs(a - b) <= SAME * max(abs(a), abs(b)) or (np.isnan(a) and np.isnan(b)) for a, b in pairs
        )


def names_of(group: Group, schedule: Schedule) -> tuple[str, ...]:
    """The schedule's parameter groups that a group's members belong to."""
    return tuple(dict.fromkeys(schedule.parameter_group.get(m.parameter, group.parameter_group) for m in group.members))


def regimes(groups: Iterable[Group], steps: Sequence[int], schedule: Schedule) -> dict[str, Regime]:
    """The regime of every group by its name; groups of the same parameter groups share one."""
    made: dict[tuple[str, ...], Regime] = {}
    found: dict[str, Regime] = {}
    for group in groups:
        key = names_of(group, schedule)
        if key not in made:
            made[key] = regime(group, np.asarray(steps), schedule)
        found[group.name] = made[key]
    return found


def regime(group: Group, steps: np.ndarray, schedule: Schedule) -> Regime:
    """Read the schedule's rows for a group's parameters onto the intervals between `steps`."""
    table = schedule.table
    frames = [table.filter(pl.col("parameter_group") == name).sort("step_from") for name in names_of(group, schedule)]
    frames = [f for f in frames if f.height]
    if not frames:
        return _empty(steps, "schedule unknown")
    numbers = frames[0].drop("parameter_group", "source")
    if any(not f.drop("parameter_group", "source").equals(numbers) for f in frames[1:]):
        return _empty(steps, MIXED)
    rows = frames[0].to_dicts()
    start = {row["step_from"]: i for i, row in enumerate(rows)}
    per_interval = [_join(rows, start, int(a), int(b)) for a, b in zip(steps, steps[1:], strict=False)]

    def column(name: str) -> np.ndarray:
        values = [None if r is None else r.get(name) for r in per_interval]
        return np.array([np.nan if v is None else float(v) for v in values])

    last = rows[-1]
    optimizer = last["optimizer"] or ""
    momentum = column(MOMENTUM.get(optimizer, "momentum"))
    dampening = np.nan_to_num(column("dampening"))
    decay = column("sum_decay")
    if optimizer in COUPLED:
        decay = decay * (1 - dampening) / (1 - momentum)
    elif optimizer not in DECOUPLED and (optimizer or not last["decoupled"]):
        decay = np.full(len(decay), np.nan)
    changes = np.array([r is None or r["learning_rate_changes"] in (None, True) for r in per_interval], bool)
    spread = column("sum_learning_rate_high") - column("sum_learning_rate_low")
    total, eta, last_rate = column("sum_learning_rate"), column("learning_rate_first"), column("learning_rate_last")
    width = column("learning_rate_last_high") - column("learning_rate_last_low")
    updates = _updates(np.diff(steps), total, eta, changes)
    rate_known = bool(np.isfinite(eta).any())
    if not rate_known and np.isfinite(decay).any():
        total = column("sum_decay")
        eta, last_rate, moves = _from_clocks(total / updates)
        told = np.array([r is not None and bool(r["learning_rate_changes"]) for r in per_interval])
        changes = ~np.isfinite(decay) | moves | told
    return Regime(
        steps=steps, updates=updates, decay=decay, rate_sum=total,
        rate_first=eta, rate_last=last_rate, uncertain=width > KNOWN * column("learning_rate_last_high"),
        located=(spread <= 0.01 * total) | (updates == 1), changes=changes, weight_decay=column("weight_decay"),
        momentum=momentum, dampening=dampening, beta2=column("beta2"), optimizer=optimizer,
        nesterov=bool(last["nesterov"]), rate_known=rate_known, momentum_assumed=bool(last.get("momentum_assumed")),
        gap=_gap(last, optimizer, total, decay),
    )  # fmt: skip


def _from_clocks(per_update: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, last, changes) [intervals] of the decay per update, read off clocks, as if it were a learning rate.

    A stretch that differs by less than CLOCKED from its start has its mean throughout. Where every interval differs
    from its neighbours the rate moves: it passes half-way between them.
    """
    level, begin = per_update.copy(), 0
    alone = np.zeros(len(level), bool)
    for i in range(1, len(level) + 1):
        if i == len(level) or not abs(per_update[i] - per_update[begin]) <= CLOCKED * abs(per_update[begin]):
            level[begin:i] = per_update[begin:i].mean()
            alone[begin] = i - begin == 1
            begin = i
    moves = alone & (np.append(alone[1:], False) | np.append(False, alone[:-1]))
    between = 0.5 * (level[1:] + level[:-1])
    first = np.where(moves, np.append(level[:1], between), level)
    last = np.where(moves, np.append(between, level[-1:]), level)
    return first, last, moves


def _join(rows: list[dict], start: dict[int, int], a: int, b: int) -> dict | None:
    """The schedule's rows that tile (a, b] as one, or None. `start` maps step_from to the row's index."""
    first = end = start.get(a, len(rows))
    while end < len(rows) and rows[end]["step_to"] < b:
        end += 1
    if end >= len(rows) or rows[end]["step_to"] != b:
        return None
    inside = rows[first : end + 1]
    joined = dict(inside[-1])
    joined["learning_rate_first"] = inside[0]["learning_rate_first"]
    for key in ("sum_learning_rate", "sum_decay"):
        for edge in ("", "_low", "_high"):
            parts = [r[key + edge] for r in inside]
            joined[key + edge] = None if any(p is None for p in parts) else sum(parts)
    rates = [r[k] for r in inside for k in ("learning_rate_first", "learning_rate_last")]
    if any(x is not None for x in rates):  # else decay clocks alone say what they can
        differ = any(x is None or rates[0] is None or abs(x - rates[0]) > SAME * abs(rates[0]) for x in rates)
        joined["learning_rate_changes"] = differ or any(r["learning_rate_changes"] for r in inside)
    elif any(r["learning_rate_changes"] for r in inside):
        joined["learning_rate_changes"] = True
    return joined


def _updates(spans: np.ndarray, total: np.ndarray, eta: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Optimizer steps per interval: from Σ η where η is constant, in proportion elsewhere."""
    with np.errstate(divide="ignore", invalid="ignore"):
        per_unit = np.where(changes, np.nan, total / eta / spans)
    known = per_unit[np.isfinite(per_unit)]
    return np.rint(spans * (float(np.median(known)) if len(known) else 1.0))


def _gap(row: dict, optimizer: str, total: np.ndarray, decay: np.ndarray) -> str:
    """What keeps the decay over the intervals from being known, in a word or two."""
    clocked = bool(np.isfinite(decay).any())
    if not optimizer:
        return NAMELESS
    if row["weight_decay"] is None and not clocked:
        return "weight decay unknown"
    if row["learning_rate_first"] is None and not clocked:
        return "learning rate unknown"
    if row["weight_decay"] == 0:
        return ""
    if optimizer not in (*COUPLED, *DECOUPLED):
        return f"{optimizer}: decay rate depends on gradients"
    if optimizer in COUPLED and row["momentum"] is None:
        return "momentum unknown"
    return "" if clocked or np.isfinite(total).any() else "steps per epoch unknown"


def _empty(steps: np.ndarray, gap: str) -> Regime:
    n = max(len(steps) - 1, 0)
    nothing, no = np.full(n, np.nan), np.zeros(n, bool)
    return Regime(
        steps, np.diff(steps).astype(float), nothing, nothing, nothing, nothing, no, no, ~no, nothing, nothing, nothing,
        nothing, "", False, False, False, gap,
    )  # fmt: skip
