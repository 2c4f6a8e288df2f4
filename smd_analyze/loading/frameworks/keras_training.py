"""What Keras was told about training: optimizer, learning rate, weight decay, regularizers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from smd_analyze.loading.frameworks.base import Told
from smd_analyze.loading.frameworks.keras_layers import Layer
from smd_analyze.loading.frameworks.keras_schedules import scheduled
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import number_of, text_of
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Applies, Kind, Setting

NUMBERS = {
    "momentum": "momentum", "beta_1": "beta1", "beta1": "beta1", "beta_2": "beta2", "beta2": "beta2",
    "epsilon": "eps", "nesterov": "nesterov", "amsgrad": "amsgrad", "rho": "alpha", "clipnorm": "clipnorm",
    "clipvalue": "clipvalue", "global_clipnorm": "global_clipnorm",
}  # fmt: skip
LAST: Applies = "last update"
PLAIN = "no regularizer"


def optimizer_settings(
    optimizer: Mapping[str, Any], where: str, iterations: Place | None, rate: Place | None, every: int = 1
) -> tuple[list[Setting], dict[Setting, Place]]:
    """Settings of a serialized optimizer {class_name, config}, and where those lie that are tensors.

    A rate in the file is taken for that of the last update: Keras' LearningRateScheduler sets it at the beginning of an
    epoch, checkpoints are saved at its end. A schedule is a function of the iterations: it gives the next update's.
    """
    out: list[Setting] = []
    unread: dict[Setting, Place] = {}
    config = optimizer.get("config")
    config = config if isinstance(config, dict) else {}
    kind = optimizer.get("class_name")
    if isinstance(kind, str):
        out.append(Setting("optimizer", None, kind.rpartition(">")[2], "", "configured", f"{where}, class_name"))
    for key, name in NUMBERS.items():
        value = number_of(config.get(key))
        if value is not None:
            out.append(Setting(name, short(value), None, "", "in force", f"{where}, {key}", LAST))
    if kind == "SGD" and "dampening" not in config:
        out.append(Setting("dampening", 0.0, None, "", "configured", f"{where}: Keras' SGD has none"))
    key = "learning_rate" if "learning_rate" in config else "lr"
    saved = config.get(key)
    decay = number_of(config.get("decay")) or 0.0
    if rate is not None:
        made = Setting("learning_rate", None, None, "", "in force", "the optimizer's learning rate in the file", LAST)
        out.append(made)
        unread[made] = rate
    elif isinstance(saved, dict):
        add_schedule(saved, f"{where}, {key}", iterations, every, out, unread)
    elif (value := number_of(saved)) is not None and decay and iterations is not None:
        inverse = {"initial_learning_rate": value, "decay_steps": 1, "decay_rate": decay}
        words = {"class_name": "InverseTimeDecay", "config": inverse}
        add_schedule(words, f"{where}, {key} and decay {decay:g}", iterations, every, out, unread)
    elif value is not None:
        out.append(Setting("learning_rate", short(value), None, "", "in force", f"{where}, {key}", LAST))
    coefficient = number_of(config.get("weight_decay"))
    if coefficient:
        out.append(Setting("weight_decay", coefficient, None, "", "in force", f"{where}, weight_decay", LAST))
        source = f"{where}, weight_decay: Keras takes η·λ·w off apart from the gradient"
        out.append(Setting("decoupled_weight_decay", 1.0, None, "", "in force", source))
    return out, unread


def add_schedule(
    node: Mapping[str, Any],
    where: str,
    iterations: Place | None,
    every: int,
    out: list[Setting],
    unread: dict[Setting, Place],
) -> None:
    """A learning rate schedule: its name, its numbers, and its values around the file's iterations.

    A schedule counts calls; with gradient accumulation one in `every` is an update, and its rate is that of this call.
    """
    kind, config = node.get("class_name"), node.get("config")
    if not isinstance(kind, str) or not isinstance(config, dict):
        return
    kind = kind.rpartition(">")[2]
    out.append(Setting("schedule", None, kind, "", "configured", where))
    told = {**config, **({"calls_per_update": every} if every > 1 else {})}
    for key, value in told.items():
        if (number := number_of(value)) is not None:
            out.append(Setting(f"schedule.{key}", number, None, "", "configured", where))
        elif isinstance(value, list) and (text := text_of(value)) is not None:
            out.append(Setting(f"schedule.{key}", None, text, "", "configured", where))
    moments: tuple[tuple[int, Applies], ...] = ((1, "next update"), (0, LAST))
    for ahead, applies in moments if iterations is not None else ():
        place = scheduled(kind, config, iterations, ahead, every) if iterations is not None else None
        if place is not None:
            source = f"{where}: {kind} at the file's iterations" + ("" if ahead else " less one")
            made = Setting("learning_rate", None, None, "", "in force", source, applies)
            out.append(made)
            unread[made] = place


def regularized(
    layers: Sequence[Layer], parameters: Iterable[str], decoupled: bool, where: str
) -> tuple[dict[str, tuple[str, ...]], list[Setting], list[Finding]]:
    """(parameter group → parameters, their weight decay, findings) from the layers' L2 regularizers.

    l2(c) adds c·Σw² to the loss: its gradient 2c·w is that of a weight decay λ = 2c within the gradient.
    """
    known = {layer.name: layer for layer in layers}
    groups: dict[str, list[str]] = {}
    rates: dict[str, float] = {}
    names = list(parameters)
    for name in names:
        layer = next((known[part] for part in reversed(name.split("/")[:-1]) if part in known), None)
        c = l2_of(layer.config.get(f"{name.rpartition('/')[2]}_regularizer")) if layer else 0.0
        group = f"l2({c:.6g})" if c else PLAIN
        rates[group] = 2 * c
        groups.setdefault(group, []).append(name)
    if not any(rates.values()):
        return {}, [], []
    if decoupled:
        words = "weight decay of the optimizer and L2 regularizers of layers act together; only the former is used"
        return {}, [], [Finding("two-decays", "warning", where, words, "Give --settings if the latter matters more.")]
    out: list[Setting] = []
    kind: Kind = "in force"
    for group, rate in rates.items():
        source = f"{where}, L2 regularizer {group}: λ = 2c" if rate else f"{where}: no regularizer"
        out.append(Setting("weight_decay", rate, None, group, kind, source, LAST))
        out.append(Setting("decoupled_weight_decay", 0.0, None, group, kind, source))
    return {g: tuple(n) for g, n in groups.items()}, out, []


def l2_of(node: Any) -> float:
    """The coefficient c of a serialized regularizer L2, L1L2 or l2; 0 if there is none."""
    config = node.get("config") if isinstance(node, dict) else None
    return short(number_of(config.get("l2")) or 0.0) if isinstance(config, dict) else 0.0


def short(value: float) -> float:
    """0.1 for float32's 0.10000000149: Keras 2 writes numbers that passed through a float32 variable."""
    with np.errstate(over="ignore"):
        narrow = np.float32(value)
    return float(str(narrow)) if float(narrow) == value else value


def told(
    groups: Mapping[str, tuple[str, ...]],
    states: Mapping[str, Mapping[str, Place]],
    settings: Sequence[Setting],
    unread: Mapping[Setting, Place],
    findings: Sequence[Finding],
    iterations: Place | None,
) -> Told:
    """All of it; Adam's states get the count of updates as their step."""
    if iterations is not None:
        states = {n: ({**s, "step": iterations} if "exp_avg" in s else s) for n, s in states.items()}
    return Told(groups, states, tuple(settings), unread, tuple(findings))
