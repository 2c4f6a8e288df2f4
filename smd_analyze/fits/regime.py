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
FOURTH_POWER = ("sgd", "sgdw")  # ‖w‖⁴ relaxes linearly; for adamw, lion and muon it is ‖w‖²


@dataclass(frozen=True, eq=False)  # equal only to itself: groups share one, and what follows from it
class Regime:
    """The schedule of one group. Arrays are per interval between consecutive `steps`; NaN where not known.

    `decay` is Σ x_e: the decay of the weights over the interval, momentum included (Σ ηλ(1−d)/(1−α) for decay in the
    gradient under SGD with dampening d, Σ ηλ for decoupled decay). `rate_first`, `rate_last` are learning rates,
    `uncertain`: which one made the interval's last update is not known. `located`: Σ η is known to 1 %, or but for a
    single update. `updates`: optimizer steps. `gap` says in words what is missing ("" if nothing is).
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
    optimizer: str
    nesterov: bool
    gap: str

    @property
    def no_decay(self) -> bool:
        """Weight decay is known and 0 throughout."""
        return bool(len(self.weight_decay)) and bool(np.all(self.weight_decay == 0))

    @property
    def smear(self) -> float:
        """1/(1 − α): optimizer steps over which momentum spreads one gradient."""
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
    momentum = column("beta1" if optimizer == "adamw" else "momentum")
    dampening = np.nan_to_num(column("dampening"))
    decay = column("sum_decay")
    if optimizer in COUPLED:
        decay = decay * (1 - dampening) / (1 - momentum)
    elif optimizer not in DECOUPLED:
        decay = np.full(len(decay), np.nan)
    changes = [r is None or r["learning_rate_changes"] in (None, True) for r in per_interval]
    spread = column("sum_learning_rate_high") - column("sum_learning_rate_low")
    total, eta, last_rate = column("sum_learning_rate"), column("learning_rate_first"), column("learning_rate_last")
    width = column("learning_rate_last_high") - column("learning_rate_last_low")
    updates = _updates(np.diff(steps), total, eta, np.array(changes, bool))
    return Regime(
        steps=steps, updates=updates, decay=decay, rate_sum=total,
        rate_first=eta, rate_last=last_rate, uncertain=width > KNOWN * column("learning_rate_last_high"),
        located=(spread <= 0.01 * total) | (updates == 1),
        changes=np.array(changes, bool), weight_decay=column("weight_decay"), momentum=momentum, dampening=dampening,
        optimizer=optimizer, nesterov=bool(last["nesterov"]), gap=_gap(last, optimizer, total),
    )  # fmt: skip


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
    differ = any(x is None or rates[0] is None or abs(x - rates[0]) > SAME * abs(rates[0]) for x in rates)
    joined["learning_rate_changes"] = differ or any(r["learning_rate_changes"] for r in inside)
    return joined


def _updates(spans: np.ndarray, total: np.ndarray, eta: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Optimizer steps per interval: from Σ η where η is constant, in proportion elsewhere."""
    with np.errstate(divide="ignore", invalid="ignore"):
        per_unit = np.where(changes, np.nan, total / eta / spans)
    known = per_unit[np.isfinite(per_unit)]
    return np.rint(spans * (float(np.median(known)) if len(known) else 1.0))


def _gap(row: dict, optimizer: str, total: np.ndarray) -> str:
    """What keeps the decay over the intervals from being known, in a word or two."""
    if not optimizer:
        return "optimizer unknown"
    if row["weight_decay"] is None:
        return "weight decay unknown"
    if row["learning_rate_first"] is None:
        return "learning rate unknown"
    if row["weight_decay"] == 0:
        return ""
    if optimizer not in (*COUPLED, *DECOUPLED):
        return f"{optimizer}: decay rate depends on gradients"
    if optimizer in COUPLED and row["momentum"] is None:
        return "momentum unknown"
    return "" if np.isfinite(total).any() else "steps per epoch unknown"


def _empty(steps: np.ndarray, gap: str) -> Regime:
    n = max(len(steps) - 1, 0)
    nothing = np.full(n, np.nan)
    return Regime(
        steps, np.diff(steps).astype(float), nothing, nothing, nothing, nothing, np.zeros(n, bool), np.zeros(n, bool),
        np.ones(n, bool), nothing, nothing, nothing, "", False, gap,
    )  # fmt: skip
