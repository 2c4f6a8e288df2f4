"""Hyperparameters of one checkpoint: what is in force per parameter group, what was configured, what may be inferred.

torch saves no class names of optimizers and schedulers: they are inferred from the keys that each class saves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.loading.frameworks.base import Parts
from smd_analyze.loading.tensors import Place
from smd_analyze.loading.trees import as_dict, plain
from smd_analyze.records.run import Applies, Setting

IN_FORCE = {
    "lr": "learning_rate", "weight_decay": "weight_decay", "momentum": "momentum", "dampening": "dampening",
    "nesterov": "nesterov", "eps": "eps", "decoupled_weight_decay": "decoupled_weight_decay", "alpha": "alpha",
    "amsgrad": "amsgrad", "maximize": "maximize", "correct_bias": "correct_bias",
}  # fmt: skip
CONFIGURED = {
    "lr": "learning_rate", "learning_rate": "learning_rate", "base_lr": "learning_rate", "lr0": "learning_rate",
    "weight_decay": "weight_decay", "wd": "weight_decay", "momentum": "momentum", "beta1": "beta1", "beta2": "beta2",
    "adam_beta1": "beta1", "adam_beta2": "beta2", "adam_epsilon": "eps", "eps": "eps",
    "opt": "optimizer", "optim": "optimizer",
    "optimizer": "optimizer", "lr_scheduler_type": "schedule", "lr_scheduler": "schedule", "scheduler": "schedule",
    "sched": "schedule",
}  # fmt: skip
CONFIGURED_AS_IS = (
    "warmup_steps", "warmup_ratio", "warmup_epochs", "warmup_iters", "warmup_updates", "max_steps", "max_iters",
    "epochs",
    "num_train_epochs", "min_lr", "lr_decay_iters", "batch_size", "per_device_train_batch_size",
    "gradient_accumulation_steps", "decay_epochs", "decay_rate", "cooldown_epochs", "lrf", "cos_lr", "warmup_lr",
)  # fmt: skip


def read_settings(parts: Parts, optimizers: Mapping[str, Any]) -> tuple[tuple[Setting, ...], dict[Setting, Place]]:
    """All settings that a checkpoint tells, with their sources; and where those lie that are tensors.

    `optimizers` are those that train the model, under a label that goes before their groups' names ("" for one only).
    """
    out: list[Setting] = []
    unread: dict[Setting, Place] = {}
    for label, optimizer in optimizers.items():
        out += group_settings(optimizer, label, unread)
    for scheduler in parts.schedulers[:1]:
        out += schedule_settings(scheduler)
        if not parts.optimizers:
            out += scheduled_rates(scheduler)
    out += configured_settings(parts.configured, parts.configured_in)
    for stated in configured_settings(parts.stated, "the file"):
        if stated.value is not None and stated.name in IN_FORCE.values():
            out.append(replace(stated, kind="in force", source=f"{stated.source.partition('.')[2]} beside the weights"))
    return tuple(out), unread


def group_settings(optimizer: Mapping[str, Any], label: str, unread: dict[Setting, Place]) -> list[Setting]:
    """One parameter group after the other. A saved learning rate is that of the next update."""
    out: list[Setting] = []
    states = optimizer.get("state")
    state = next((s for v in (states.values() if isinstance(states, dict) else ()) if (s := as_dict(v))), {})
    for index, node in enumerate(optimizer["param_groups"]):
        group = as_dict(node) or {}
        name = (label and label + "/") + group_name(group, index)
        source = f"param_groups[{index}] of {label or 'the optimizer'}"
        betas = group.get("betas")
        betas = betas if isinstance(betas, tuple | list) and len(betas) >= 2 else ()
        values = [(key, setting, group.get(key)) for key, setting in IN_FORCE.items()]
        values += [("betas", setting, beta) for setting, beta in zip(("beta1", "beta2"), betas, strict=False)]
        for key, setting, saved in values:
            value = number_of(saved)
            made = Setting(setting, value, None, name, "in force", f"{source}, {key}", "next update")
            if value is not None:
                out.append(made)
            elif type(saved) is Place and saved.shape in ((), (1,)):  # capturable optimizers keep it in a tensor
                out.append(made)
                unread[made] = saved
        initial = number_of(group.get("initial_lr"))
        if initial is not None:
            out.append(Setting("learning_rate", initial, None, name, "configured", f"{source}, initial_lr"))
        kind = optimizer_of(group, state)
        if kind:
            out.append(Setting("optimizer", None, kind, name, "inferred", f"keys of {source}"))
    return out


def group_name(group: Mapping[str, Any], index: int) -> str:
    """The name that the group was given, else its number."""
    name = group.get("name")
    return name if isinstance(name, str) and name else str(index)


def optimizer_of(group: Mapping[str, Any], state: Mapping[str, Any]) -> str | None:
    """The optimizer whose keys these are (torch 2.x; AdamW had no key of its own before 2.6: then "Adam or AdamW")."""
    if "ns_steps" in group:
        return "Muon"
    if "beta2_decay" in group:
        return "Adafactor"
    if "momentum_decay" in group:
        return "NAdam"
    if "betas" in group:
        if "exp_avg" in state and "exp_avg_sq" not in state and "exp_inf" not in state:
            return "Lion"
        if "exp_inf" in state:
            return "Adamax"
        if "decoupled_weight_decay" in group:
            if "amsgrad" not in group:
                return "RAdam"
            return "AdamW" if group["decoupled_weight_decay"] else "Adam"
        return "Adam or AdamW" if "eps" in group or "exp_avg_sq" in state else None
    if "alpha" in group and "momentum" in group:
        return "RMSprop"
    if "lr_decay" in group:
        return "Adagrad"
    if "rho" in group:
        return "Adadelta"
    if "momentum" in group and ("nesterov" in group or "dampening" in group):
        return "SGD"
    return None


def schedule_settings(state: Mapping[str, Any]) -> list[Setting]:
    """The scheduler's class, inferred from its keys, and its numbers as `schedule.<key>`."""
    source = "the scheduler's state"
    kind = schedule_of(state)
    out = [Setting("schedule", None, kind, "", "inferred", f"keys of {source}")] if kind else []
    for key, value in state.items():
        if not isinstance(key, str) or key.startswith("_"):
            continue
        number = number_of(value)
        if number is not None:
            out.append(Setting(f"schedule.{key}", number, None, "", "in force", source))
        elif (text := text_of(value)) is not None:
            out.append(Setting(f"schedule.{key}", None, text, "", "in force", source))
    return out


def scheduled_rates(state: Mapping[str, Any]) -> list[Setting]:
    """Learning rates per group as the scheduler last set them, for files without the optimizer."""
    rates = state.get("_last_lr")
    return [
        Setting("learning_rate", number, None, str(i), "in force", f"the scheduler's _last_lr[{i}]", "next update")
        for i, rate in enumerate(rates if isinstance(rates, list | tuple) else ())
        if (number := number_of(rate)) is not None
    ]


def schedule_of(state: Mapping[str, Any]) -> str | None:
    """The scheduler whose keys these are (torch 2.x); None for LambdaLR, which says nothing."""
    for keys, name in (
        (("T_0", "T_mult"), "CosineAnnealingWarmRestarts"), (("T_max", "eta_min"), "CosineAnnealingLR"),
        (("milestones", "gamma"), "MultiStepLR"), (("step_size", "gamma"), "StepLR"),
        (("total_steps", "_schedule_phases"), "OneCycleLR"), (("patience", "factor"), "ReduceLROnPlateau"),
        (("start_factor", "total_iters"), "LinearLR"), (("factor", "total_iters"), "ConstantLR"),
        (("power", "total_iters"), "PolynomialLR"), (("step_ratio", "total_size"), "CyclicLR"),
        (("_schedulers", "_milestones"), "SequentialLR"), (("gamma",), "ExponentialLR"),
    ):  # fmt: skip
        if all(k in state for k in keys):
            return name
    return None


def configured_settings(configured: Mapping[str, Any], where: str) -> list[Setting]:
    """What the trainer was told: learning rate, decay, optimizer, schedule, under the names that trainers use."""
    out: list[Setting] = []
    for key, value in configured.items():
        name = CONFIGURED.get(key) or (key if key in CONFIGURED_AS_IS else None)
        if name is None:
            continue
        number, source = number_of(value), f"{where}.{key}" if not where.endswith(".bin") else f"{where}, {key}"
        if number is None and isinstance(value, str) and name not in ("optimizer", "schedule"):
            try:
                number = float(value)
            except ValueError:
                continue
        if number is not None and name not in ("optimizer", "schedule"):
            out.append(Setting(name, number, None, "", "configured", source))
        elif isinstance(value, str) and name in ("optimizer", "schedule"):
            out.append(Setting(name, None, value, "", "configured", source))
    return out


def number_of(value: Any) -> float | None:
    """A number, booleans as 0 and 1; None for anything else, tensors included."""
    value = plain(value)
    if type(value) in (int, float, bool):
        try:
            return float(value)
        except OverflowError:
            return None
    return None


def text_of(value: Any) -> str | None:
    """A short list, dict of numbers, or word as text."""
    if isinstance(value, str):
        return value
    if (
        type(value) is dict
        and value
        and all(type(k) in (int, str) and type(v) in (int, float) for k, v in value.items())
    ):
        return json.dumps(list(value.keys()) if all(type(k) is int for k in value) else value)
    if type(value) in (list, tuple) and len(value) <= 64 and all(type(v) in (int, float) for v in value):
        return json.dumps(list(value))
    return None


def logged_settings(
    logged: tuple[tuple[int, float], ...], after: int, step: int, applies: Applies
) -> tuple[Setting, ...]:
    """Learning rates that the trainer logged since the previous checkpoint."""
    return tuple(
        Setting(
            "logged_learning_rate", rate, None, "", "in force", f"trainer_state.json log_history step {at}", applies
        )
        for at, rate in logged
        if after < at <= step
    )
