"""Runs built by hand: checkpoints with settings and no readable tensors."""

import numpy as np
import polars as pl

from smd_analyze.records.run import Checkpoint, LazyTensor, Run, Setting

CLOCKS = {
    "clock": pl.String, "parameter": pl.String, "functional": pl.String, "step_from": pl.Int64, "step_to": pl.Int64,
    "decay_per_step": pl.Float64, "decay_per_step_low": pl.Float64, "decay_per_step_high": pl.Float64,
    "kind": pl.String, "directions": pl.Int64, "evidence": pl.String,
}  # fmt: skip


def unread() -> np.ndarray:
    raise AssertionError("the schedule must not read a tensor")


def setting(name, value=None, group="", kind="in force", applies="next update", source="opt.pt"):
    number, text = (None, value) if isinstance(value, str) else (value, None)
    return Setting(name, number, text, group, kind, source, applies)


def checkpoint(step, settings=(), parameters=("conv.weight", "norm.bias"), state=None, framework="plain torch"):
    tensors = {p: LazyTensor((10, 64) if p.endswith("weight") else (10,), "float32", unread) for p in parameters}
    return Checkpoint(step, f"{step}.pt", "torch", framework, tensors, tuple(settings), optimizer_state=state or {})


def run(*checkpoints, unit="optimizer steps", groups=None, logs=()):
    return Run("ckpts", tuple(checkpoints), "file names", unit, (), groups or {}, logs=logs)


def sgd(lr, group="", wd=5e-4, momentum=0.9):
    """The settings that torch's SGD saves."""
    return [
        setting("learning_rate", lr, group), setting("weight_decay", wd, group), setting("momentum", momentum, group),
        setting("dampening", 0.0, group), setting("nesterov", 0.0, group),
        setting("optimizer", "SGD", group, kind="inferred"),
    ]  # fmt: skip


def scheduler(kind, last_epoch, **state):
    """A torch scheduler's saved numbers."""
    names = {"last_epoch": last_epoch, **state}
    return [setting("schedule", kind)] + [setting(f"schedule.{k}", v) for k, v in names.items()]


def codes(schedule):
    return [f.code for f in schedule.findings]


def column(schedule, name, group=None):
    table = schedule.table
    if group is not None:
        table = table.filter(table["parameter_group"] == group)
    return table[name].to_list()


def clock_table(*rows):
    """The `clocks` table of (parameter, functional, step_from, step_to, rate, relative half-width[, kind])."""
    made = []
    for parameter, functional, a, b, rate, wide, *kind in rows:
        half = wide * rate if rate else wide
        made.append(
            {
                "clock": f"{parameter} ({functional})", "parameter": parameter, "functional": functional,
                "step_from": a, "step_to": b, "decay_per_step": rate, "decay_per_step_low": rate - half,
                "decay_per_step_high": rate + half, "kind": kind[0] if kind else "moving", "directions": None,
                "evidence": "",
            }
        )  # fmt: skip
    return pl.DataFrame(made, schema=CLOCKS)


def ticking(parameter, steps, rates, functional="sum over units", wide=1e-4, kind="moving"):
    """Rows of one clock over every interval between `steps`."""
    spans = zip(steps, steps[1:], rates, strict=False)
    return [(parameter, functional, a, b, rate, wide, kind) for a, b, rate in spans]
