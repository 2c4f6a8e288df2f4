"""optax' state: moments in trees like that of the params, counters, and hyperparameters if they were injected.

optax.multi_transform keeps a state per label, each with the moments of that label's parameters only: parameter groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import tensors
from smd_analyze.records.run import Setting

MOMENTS = {"mu": "exp_avg", "nu": "exp_avg_sq", "trace": "momentum_buffer"}
PER_PARAMETER = {"grad_ema": "exp_avg", "grad_sq_ema": "exp_avg_sq", "momentum": "momentum_buffer"}
"""Flax' own optimizers, older than optax, and T5X: a dict of these for each parameter."""
HYPERPARAMETERS = {
    "learning_rate": "learning_rate", "lr": "learning_rate", "step_size": "learning_rate",
    "weight_decay": "weight_decay", "wd": "weight_decay", "momentum": "momentum", "decay": "momentum",
    "b1": "beta1", "b2": "beta2", "beta1": "beta1", "beta2": "beta2", "eps": "eps",
}  # fmt: skip
FIELDS = {
    "ScaleByAdamState": ("count", "mu", "nu"),
    "ScaleByLionState": ("count", "mu"),
    "TraceState": ("trace",),
    "ScaleByScheduleState": ("count",),
    "ScaleByRmsState": ("nu",),
    "ScaleByAmsgradState": ("count", "mu", "nu", "nu_max"),
    "FactoredState": ("count", "v_row", "v_col", "v"),
    "MaskedState": ("inner_state",),
    "PartitionState": ("inner_states",),
    "MultiTransformState": ("inner_states",),
    "MultiStepsState": ("mini_step", "gradient_step", "inner_opt_state", "acc_grads", "skip_state"),
    "MuonState": ("count", "mu", "ns_coeffs"),
    "InjectHyperparamsState": ("count", "hyperparams", "inner_state"),
    "InjectStatefulHyperparamsState": ("count", "hyperparams", "hyperparams_states", "inner_state"),
}  # fmt: skip
"""optax' named tuples, whose pickles hold values without names."""
VALUES = (*MOMENTS, "hyperparams", "count", "gradient_step", "ns_coeffs", "v_row", "param_states")
UNUSED = ("acc_grads", "hyperparams_states", "skip_state")
GROUPS = "inner_states"
PRAXIS = {"m": "mu", "v": "nu"}  # PaxML's Adam
DEEPEST = 40


@dataclass(frozen=True)
class Part:
    """A named value somewhere in the state; `group` is the label of the parameters that it is of, "" for all."""

    group: str
    key: str
    value: Any


def parts_of(node: Any, group: str = "", depth: int = 0) -> Iterator[Part]:
    """Everything that has a name of optax', at any depth."""
    if depth > DEEPEST:
        return
    found = members(node)
    if (
        type(node) is dict
        and {"m", "v"} <= node.keys()
        and tensors(node["m"]).keys() == tensors(node["v"]).keys() != set()
    ):
        found = [(PRAXIS.get(k, k), v) for k, v in found]
    for key, value in found:
        if key in VALUES:
            yield Part(group, key, value)
        elif key == GROUPS and type(value) in (dict, Inert):
            for label, state in members(value):
                yield from parts_of(state, f"{group}/{label}" if group else label, depth + 1)
        elif key not in UNUSED and type(value) in (dict, list, tuple, Inert):
            yield from parts_of(value, group, depth + 1)


def members(node: Any) -> list[tuple[str, Any]]:
    """Children with their names: those of optax' named tuples are known."""
    if type(node) is dict:
        return [(str(k), v) for k, v in node.items()]
    if type(node) is Inert:
        names = FIELDS.get(node.name.rpartition(" ")[2])
        if names and len(names) == len(node.args):
            return list(zip(names, node.args, strict=True))
        return [*((str(i), v) for i, v in enumerate(node.args)), *node.attributes.items()]
    return [(str(i), v) for i, v in enumerate(node)] if type(node) in (list, tuple) else []


def facts(found: list[Part]) -> list[Fact]:
    """Updates of the weights: MultiSteps' own count where gradients are accumulated, else the first count."""
    out: list[Fact] = []
    for key, source in (("gradient_step", "optax' gradient_step in the file"), ("count", "optax' count in the file")):
        value = next((n for p in found if p.key == key and (n := plain.number(p.value)) is not None), None)
        if value is not None:
            out.append(Fact(value, STEPS, source))
    return out


def moments(found: list[Part]) -> Iterator[tuple[str, str, str, Place]]:
    """(group, parameter, moment under torch's name, where it lies); the parameter's name as the state has it."""
    for part in found:
        if part.key in MOMENTS:
            for name, place in tensors(part.value).items():
                yield part.group, name, MOMENTS[part.key], place
        elif part.key == "param_states":
            for name, place in tensors(part.value).items():
                parameter, _, kind = name.rpartition(".")
                if kind in PER_PARAMETER:
                    yield part.group, parameter, PER_PARAMETER[kind], place


def settings(found: list[Part]) -> Iterator[tuple[Setting, Place | None]]:
    """Injected hyperparameters, as they were in the last update, and which optimizer keeps such moments."""
    for group in dict.fromkeys(p.group for p in found):
        mine = [p for p in found if p.group == group]
        decays = False
        for part in mine:
            if part.key != "hyperparams":
                continue
            for saved, value in members(part.value):
                name = HYPERPARAMETERS.get(saved)
                number = float(value) if type(value) in (int, float) else None
                place = value if type(value) is Place and value.shape in ((), (1,)) else None
                if name and (number is not None or place is not None):
                    decays = decays or name == "weight_decay"
                    source = f"optax' hyperparams.{saved} in the file"
                    yield Setting(name, number, None, group, "in force", source, "last update"), place
        kind = optimizer_of({p.key for p in mine if p.key not in MOMENTS or tensors(p.value)}, mine, decays)
        if kind:
            yield Setting("optimizer", None, kind, group, "inferred", "the moments that are kept"), None


def optimizer_of(keys: set[str], found: list[Part], decays: bool) -> str | None:
    """The optimizer that keeps such values."""
    kinds = {kind for _, _, kind, _ in moments([p for p in found if p.key == "param_states"])}
    if {"mu", "nu"} <= keys or {"exp_avg", "exp_avg_sq"} <= kinds:
        return "AdamW" if decays else "Adam or AdamW"
    if "ns_coeffs" in keys:
        return "Muon"
    if "v_row" in keys or any(".v_row" in n for p in found if p.key == "param_states" for n in tensors(p.value)):
        return "Adafactor"
    if "mu" in keys:
        return "Lion"
    return "SGD" if "trace" in keys or "momentum_buffer" in kinds else "RMSprop" if "nu" in keys else None
