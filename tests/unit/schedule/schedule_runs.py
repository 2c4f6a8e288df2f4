"""Runs built by hand: checkpoints with settings and no readable tensors."""

import numpy as np

from smd_analyze.records.run import Checkpoint, LazyTensor, Run, Setting


def unread() -> np.ndarray:
    raise AssertionError("the schedule must not read a tensor")


def setting(name, value=None, group="", kind="in force", applies="next update", source="opt.pt"):
    number, text = (None, value) if isinstance(value, str) else (value, None)
    return Setting(name, number, text, group, kind, source, applies)


def checkpoint(step, settings=(), parameters=("conv.weight", "norm.bias"), state=None):
    tensors = {p: LazyTensor((2,), "float32", unread) for p in parameters}
    return Checkpoint(step, f"{step}.pt", "torch", "plain", tensors, tuple(settings), optimizer_state=state or {})


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
