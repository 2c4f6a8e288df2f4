"""Whatever clocks and options say together, the table keeps its promises."""

import numpy as np
import polars as pl
from schedule_runs import checkpoint, clock_table, run, sgd

from smd_analyze.schedule.resolve import resolve_schedule

NAMES = ("a.weight", "b.weight", "c.weight", "d.bias", "fc.weight")
FUNCTIONALS = ("sum over units", "within unit", "unit 3", "whole", "input 2")
TOLD = (
    {}, {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1, "weight_decay": 5e-4}, {"momentum": 0.5, "weight_decay": 1e-3},
    {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1}, {"optimizer": "adam"}, {"optimizer": "sgd", "lr": 0.0},
    {"optimizer": "sgd", "momentum": 0.99, "nesterov": True, "weight_decay": 1e-3}, {"optimizer": "muon"},
    {"optimizer": "lion", "lr": 1e-4, "decay_rule": "cautious", "weight_decay": 1.0},
    {"optimizer": "adamw", "lr": 1e-3, "decay_rule": "independent", "groups": {"a*": {"weight_decay": 0.0}}},
)  # fmt: skip


def anything(generator):
    """A run, its clocks, options and shrinkage, all drawn at random."""
    steps = np.unique(generator.integers(0, 3000, int(generator.integers(1, 9))))
    settings, groups = ([], {})
    if generator.random() < 0.3:
        settings = sgd(0.1, "0") + sgd(0.1, "1", wd=0.0)
        groups = {"0": NAMES[:3], "1": NAMES[3:]} if generator.random() < 0.7 else {}
    framework = ("plain torch", "keras", "onnx")[generator.integers(3)]
    points = [checkpoint(int(s), settings, NAMES, framework=framework) for s in steps]
    unit = "epochs" if generator.random() < 0.3 else "optimizer steps"
    rows = []
    for _ in range(int(generator.integers(0, 7))):
        name, functional = NAMES[generator.integers(5)], FUNCTIONALS[generator.integers(5)]
        kind = ("moving", "moving", "no decay", "at most")[generator.integers(4)]
        base = 10 ** generator.uniform(-9, -0.5)
        for i in np.flatnonzero(generator.random(len(steps) - 1) < 0.85):
            j = min(i + int(generator.integers(1, 3)), len(steps) - 1)
            rate = base * float(1 + 1e-3 * generator.standard_normal()) if kind != "no decay" else 1e-12
            wide = 10 ** generator.uniform(-6, 0)
            rows.append((name, functional, int(steps[i]), int(steps[j]), rate, wide, kind))
    shrinkage = {n: 0.1 * generator.standard_normal(len(steps) - 1) for n in NAMES[:3]}
    told = TOLD[generator.integers(len(TOLD))]
    return run(*points, unit=unit, groups=groups), clock_table(*rows) if rows else None, told, shrinkage


def test_every_parameter_has_rows_without_nan_and_with_ordered_intervals():
    generator = np.random.default_rng(11)
    for _ in range(150):
        made, clocks, told, shrinkage = anything(generator)
        found = resolve_schedule(made, clocks, told, shrinkage=shrinkage)
        table = found.table
        assert set(found.parameter_group) == set(NAMES)
        if len(made.checkpoints) > 1:
            assert set(found.parameter_group.values()) <= set(table["parameter_group"])
            assert set(table["parameter_group"].value_counts()["count"]) == {len(made.checkpoints) - 1}
        assert not any(table[c].is_nan().any() for c, kind in table.schema.items() if kind == pl.Float64)
        low, best, high = (table[f"sum_decay{end}"] for end in ("_low", "", "_high"))
        assert (low <= best * (1 + 1e-9)).all()
        assert (best <= high * (1 + 1e-9)).all()
