"""Hyperparameters of one checkpoint: what is in force per parameter group, what was configured, what may be inferred.

torch saves no class names of optimizers and schedulers: they are inferred from the keys that each class saves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.loading.frameworks.base import Parts
from smd_analyze.loading.settings.configured import NUMBERS, RATE, configured_settings
from smd_analyze.loading.settings.inferred import optimizer_of, schedule_of
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, number_of, text_of
from smd_analyze.records.run import Setting

IN_FORCE = {
    "lr": "learning_rate", "weight_decay": "weight_decay", "momentum": "momentum", "dampening": "dampening",
    "nesterov": "nesterov", "eps": "eps", "decoupled_weight_decay": "decoupled_weight_decay", "alpha": "alpha",
    "amsgrad": "amsgrad", "maximize": "maximize", "correct_bias": "correct_bias",
}  # fmt: skip
INNER = ("_schedulers", "_milestones", "_schedule_phases", "_anneal_func_type")  # what else determines a curve


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
        if len(parts.schedulers) > 1:
            others = float(len(parts.schedulers) - 1)
            out.append(Setting("schedule.others", others, None, "", "in force", "further schedulers' states"))
        if not parts.optimizers:
            out += scheduled_rates(scheduler)
    told = configured_settings(parts.configured, parts.configured_in)
    out = named_lambda(out, told) + told
    for stated in configured_settings(parts.stated, "the file"):
        if stated.value is not None and stated.name in IN_FORCE.values():
            out.append(replace(stated, kind="in force", source=f"{stated.source.partition('.')[2]} beside the weights"))
    for key, place in parts.stated.items():  # an .npz has no numbers but arrays without axes
        name = "learning_rate" if key in RATE else NUMBERS.get(key)
        if type(place) is Place and name:
            made = Setting(name, None, None, "", "in force", f"{key} beside the weights")
            out.append(made)
            unread[made] = place
    return tuple(out), unread


def named_lambda(settings: list[Setting], told: list[Setting]) -> list[Setting]:
    """transformers' schedules are LambdaLRs whose function the training arguments name: all its numbers with it."""
    kind = next((s for s in told if s.name == "schedule" and s.source.endswith("lr_scheduler_type")), None)
    if kind is None or not any(s.name == "schedule" and s.text == "LambdaLR" for s in settings):
        return settings
    named = Setting("schedule", None, f"transformers {kind.text}", "", "inferred", f"LambdaLR and {kind.source}")
    numbers = [
        Setting(f"schedule.{s.name}", s.value, None, "", "configured", s.source)
        for s in told
        if s.name in ("warmup_steps", "warmup_ratio", "max_steps")
    ]
    return [s for s in settings if (s.name, s.text) != ("schedule", "LambdaLR")] + [named, *numbers]


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
            place = saved if type(saved) is Place and saved.shape in ((), (1,)) else None  # capturable optimizers
            if value is not None or place is not None:
                out.append(Setting(setting, value, None, name, "in force", f"{source}, {key}", "next update"))
            if place is not None:
                unread[out[-1]] = place
        initial = number_of(group.get("initial_lr"))
        if initial is not None:
            out.append(Setting("learning_rate", initial, None, name, "configured", f"{source}, initial_lr"))
        adjustment = text_of(group.get("adjust_lr_fn"))  # Muon: how the learning rate depends on a matrix's shape
        if adjustment:
            out.append(Setting("adjust_lr", None, adjustment, name, "in force", f"{source}, adjust_lr_fn"))
        kind = optimizer_of(group, state)
        if kind:
            out.append(Setting("optimizer", None, kind, name, "inferred", f"keys of {source}"))
    return out


def group_name(group: Mapping[str, Any], index: int) -> str:
    """The name that the group was given, else its number."""
    name = group.get("name")
    return name if isinstance(name, str) and name else str(index)


def schedule_settings(state: Mapping[str, Any]) -> list[Setting]:
    """The scheduler's class, inferred from its keys, and its numbers as `schedule.<key>`."""
    source = "the scheduler's state"
    kind = schedule_of(state)
    out = [Setting("schedule", None, kind, "", "inferred", f"keys of {source}")] if kind else []
    for key, value in state.items():
        if not isinstance(key, str) or (key.startswith("_") and key not in INNER):
            continue
        number = number_of(value)
        if number is not None:
            out.append(Setting(f"schedule.{key}", number, None, "", "in force", source))
        elif (text := inner_text(value) if key in INNER else text_of(value)) is not None:
            out.append(Setting(f"schedule.{key}", None, text, "", "in force", source))
    parts = state.get("_schedulers")
    if (
        "last_epoch" not in state and isinstance(parts, list) and parts
    ):  # ChainedScheduler leaves the count to its parts
        count = number_of((as_dict(parts[0]) or {}).get("last_epoch"))
        if count is not None:
            out.append(Setting("schedule.last_epoch", count, None, "", "in force", source))
    return out


def inner_text(value: Any) -> str | None:
    """A scheduler's private parts as JSON: plain data only, each scheduler in it with its class as `kind`."""

    def bare(node: Any, depth: int) -> Any:
        found = as_dict(node)
        if found is not None and depth < 4:
            made = {k: bare(v, depth + 1) for k, v in list(found.items())[:64] if isinstance(k, str)}
            kind = schedule_of(found)
            return {"kind": kind, **made} if kind else made
        if isinstance(node, list | tuple) and depth < 4:
            return [bare(v, depth + 1) for v in node[:256]]
        return node if type(node) in (int, float, bool, str) else None

    made = bare(value, 0)
    return made if isinstance(made, str) else None if made is None else json.dumps(made)


def scheduled_rates(state: Mapping[str, Any]) -> list[Setting]:
    """Learning rates per group as the scheduler last set them, for files without the optimizer."""
    rates = state.get("_last_lr")
    return [
        Setting("learning_rate", number, None, str(i), "in force", f"the scheduler's _last_lr[{i}]", "next update")
        for i, rate in enumerate(rates if isinstance(rates, list | tuple) else ())
        if (number := number_of(rate)) is not None
    ]
