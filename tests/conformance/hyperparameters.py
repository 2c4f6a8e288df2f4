"""Are the hyperparameters those that the optimizer held at the save, per parameter group?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from typing import Any

from smd_analyze.records.run import Setting

NAMES = {"lr": ("learning_rate",), "weight_decay": ("weight_decay",), "momentum": ("momentum",)}
KINDS = ("in force", "inferred", "configured")


@dataclass
class HyperOutcome:
    """Names that are equal, differ, or were not found; the file may not hold the last."""

    equal: int = 0
    differing: list[str] = field(default_factory=list)
    absent: dict[str, Any] = field(default_factory=dict)


def compare_hyperparameters(settings: Sequence[Setting], hyper: Mapping[str, Any]) -> HyperOutcome:
    """Learning rate, weight decay, momentum and betas. A list in the truth is one value per parameter group."""
    out = HyperOutcome()
    for key, value in hyper.items():
        wanted = {"beta1": value[0], "beta2": value[1]} if key == "betas" else {n: value for n in NAMES.get(key, ())}
        for name, true in wanted.items():
            found = values_of(settings, name)
            if not found:
                out.absent[name] = true
            elif agrees(list(found.values()), true):
                out.equal += 1
            else:
                out.differing.append(f"{name} is {shown(found)}, was {shown(true)}")
    return out


def values_of(settings: Sequence[Setting], name: str) -> dict[str, float]:
    """Parameter group → value, of the most trusted kind that there is; the truth is what acts in the next update."""
    for kind in KINDS:
        for applies in ("next update", "whole run", "last update"):
            found = {
                s.parameter_group: s.value
                for s in settings
                if (s.name, s.kind, s.applies) == (name, kind, applies) and s.value is not None
            }
            if found:
                return found
    return {}


def agrees(found: Sequence[float], true: Any) -> bool:
    """All groups have the one value, or each group its own; a list of equal values may be told once for all."""
    if not isinstance(true, list):
        return all(near(value, true) for value in found)
    if len(found) == 1:
        return all(near(found[0], t) for t in true)
    return len(found) == len(true) and all(near(v, t) for v, t in zip(found, true, strict=True))


def near(a: float, b: float) -> bool:
    """Equal as float32 numbers."""
    return isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)


def shown(value: Any) -> str:
    """Short numbers."""
    if isinstance(value, Mapping):
        return ", ".join(f"{v:.7g} (group {k})" if k else f"{v:.7g}" for k, v in value.items())
    return ", ".join(f"{v:.7g}" for v in value) if isinstance(value, list) else f"{value:.7g}"
