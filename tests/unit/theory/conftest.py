"""A scale-invariant toy run, and records made by hand."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest

from smd_analyze.records.group import Group, Member
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics, UnitSeries


@dataclass
class Toy:
    """Units [units, elements] trained on tangent noise ‖g‖² = L/‖w‖²; `true_angles` [steps, units] per step."""

    series: UnitSeries
    true_angles: np.ndarray
    saved: np.ndarray
    etas: np.ndarray = field(repr=False)


def angle(u, v):
    u, v = (w / np.linalg.norm(w, axis=-1, keepdims=True) for w in (u, v))
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=-1), np.linalg.norm(u + v, axis=-1))


def simulate(
    etas, lam, steps, momentum=0.0, kind="sgd", start=1.0, gradient=1.0, units=16, elements=64, seed=0, dampening=0.0,
    beta2=0.999, save_direction=True,
):  # fmt: skip
    """Train from ‖w‖ = `start`, L = `gradient` (one or per unit); save at `steps`.

    kind: sgd, keras (learning rate in the velocity), nesterov, sgdw, adam (L2), adamw, lion. `lam`: one, or ηλ per step
    as an array for decoupled kinds.
    """
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((units, elements))
    w *= (np.broadcast_to(np.asarray(start, float), (units,)) / np.linalg.norm(w, axis=1))[:, None]
    sizes = np.sqrt(np.broadcast_to(np.asarray(gradient, float), (units,)))[:, None]
    m, v = np.zeros_like(w), np.zeros_like(w)
    angles, kept, directions, roots = [], {}, {}, {}
    direction, root = np.full_like(w, np.nan), np.full_like(w, np.nan)
    for t in range(len(etas) + 1):
        if t in steps:
            kept[t], directions[t], roots[t] = w.copy(), direction.copy(), root.sum(-1)
        if t == len(etas):
            break
        eta = etas[t]
        x = lam[t] if np.ndim(lam) else eta * lam
        g = rng.standard_normal(w.shape)
        n = (w * w).sum(axis=1, keepdims=True)
        g -= (g * w).sum(axis=1, keepdims=True) * w / n
        g *= sizes / np.sqrt(elements - 1) / np.sqrt(n)
        before = w
        if kind in ("adam", "adamw"):
            g = g + lam * w if kind == "adam" else g
            m = momentum * m + (1 - momentum) * g
            v = beta2 * v + (1 - beta2) * g * g
            root = np.sqrt(v / (1 - beta2 ** (t + 1)))
            direction = m / (1 - momentum ** (t + 1)) / (root + 1e-16)
            w = (1.0 if kind == "adam" else 1 - x) * w - eta * direction
        elif kind == "lion":
            w = (1 - x) * w - eta * np.sign(momentum * m + (1 - momentum) * g)
            m = beta2 * m + (1 - beta2) * g
        elif kind == "keras":
            m = momentum * m - eta * (g + lam * w)
            w, direction = w + m, -m / eta
        elif kind == "sgdw":
            m = momentum * m + g
            direction = m
            w = (1 - x) * w - eta * m
        else:
            full = g + lam * w
            m = momentum * m + (full if t == 0 else (1 - dampening) * full)
            direction = m
            w = w - eta * (full + momentum * m if kind == "nesterov" else m)
        angles.append(angle(before, w))
    saved = np.array([kept[t] for t in steps])
    moved = np.diff(saved, axis=0, prepend=np.nan)
    d = np.array([directions[t] for t in steps])
    series = UnitSeries(
        "layer", np.array(steps), (saved**2).sum(-1), (moved**2).sum(-1), (moved * saved).sum(-1),
        (d * d).sum(-1) if save_direction else None, (saved * d).sum(-1) if save_direction else None,
        np.array([roots[t] for t in steps]) if kind in ("adam", "adamw") else None,
    )  # fmt: skip
    return Toy(series, np.array(angles), saved, np.asarray(etas))


def make_statistics(*entries):
    """Statistics of (UnitSeries, overrides of Group) pairs, names from the series."""
    groups, series = [], {}
    for units, changes in entries:
        values = dict(
            name=units.group, members=(Member(units.group + ".weight", 0, 0, units.vv.shape[1]),), status="invariant",
            granularity="unit", units=units.vv.shape[1], numel=64 * units.vv.shape[1], parameter_group="decay",
            evidence="proved", role="linear", reason="",
        )  # fmt: skip
        group = Group(**(values | changes))
        groups.append(group)
        series[group.name] = units
    steps = tuple(int(t) for t in entries[0][0].steps)
    return Statistics(steps, tuple(groups), pl.DataFrame(), series.__getitem__)


NUMBERS = (
    "sum_learning_rate", "sum_learning_rate_low", "sum_learning_rate_high", "sum_decay", "sum_decay_low",
    "sum_decay_high", "momentum", "weight_decay", "dampening", "beta1", "beta2", "eps", "learning_rate_first",
    "learning_rate_last",
)  # fmt: skip


def make_schedule(etas, lam, steps, optimizer="sgd", momentum=0.0, step_unit="optimizer steps", **changes):
    """Schedule with one row per interval of `steps`, learning rates `etas` per step; `changes` set columns."""
    rows = []
    for a, b in zip(steps[:-1], steps[1:], strict=True):
        part = np.asarray(etas[a:b], float)
        row = dict.fromkeys(NUMBERS) | dict(
            parameter_group="decay", step_from=a, step_to=b, optimizer=optimizer, sum_learning_rate=part.sum(),
            sum_decay=part.sum() * lam, momentum=momentum, source="caller", weight_decay=lam, dampening=0.0,
            nesterov=False, decoupled=optimizer in ("adamw", "sgdw"), learning_rate_first=part[0],
            learning_rate_last=part[-1], beta1=momentum, beta2=0.999,
            learning_rate_changes=bool((part != part[0]).any()), decay_rule="learning rate × weight decay",
            rate_in_velocity=None, momentum_assumed=False,
        )  # fmt: skip
        rows.append(row | changes)
    words = dict.fromkeys(("parameter_group", "optimizer", "source", "decay_rule"), pl.String)
    flags = dict.fromkeys(
        ("nesterov", "decoupled", "learning_rate_changes", "rate_in_velocity", "momentum_assumed"), pl.Boolean
    )
    whole = dict.fromkeys(("step_from", "step_to"), pl.Int64)
    table = pl.DataFrame(rows, schema=dict.fromkeys(NUMBERS, pl.Float64) | words | flags | whole)
    return Schedule(table, {"layer.weight": "decay"}, step_unit)


@pytest.fixture
def toy():
    return simulate


@pytest.fixture
def statistics():
    return make_statistics


@pytest.fixture
def schedule():
    return make_schedule
