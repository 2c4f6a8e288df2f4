"""Caffe's solver.prototxt: protocol buffers as text, `base_lr: 0.01`; what stands inside braces is a net's."""

from __future__ import annotations

import re
from typing import Any

from smd_analyze.loading.sidecars.base import Reader, Sidecar, text_of_file

FIELD = re.compile(r"""(\w+)\s*:\s*("[^"]*"|'[^']*'|[^\s{}#;,]+)|([{}])|#[^\n]*""")
KINDS = {"nesterov": "SGD", "sgd": "SGD"}
POLICY = ("base_lr", "gamma", "power", "stepsize", "stepvalue", "max_iter")


def read(path: str) -> Sidecar:
    """Learning rate, momentum, decay, the solver's type, and the policy with its numbers (schedule.*)."""
    found: dict[str, list[Any]] = {}
    depth = 0
    for match in FIELD.finditer(text_of_file(path)):
        if match[3]:
            depth += 1 if match[3] == "{" else -1
        elif match[1] and depth == 0:
            found.setdefault(match[1], []).append(value_of(match[2]))
    if "base_lr" not in found:
        return Sidecar()
    kind = str(found.get("type", found.get("solver_type", ["SGD"]))[-1])
    out: dict[str, Any] = {k: found[k][-1] for k in ("base_lr", "momentum", "weight_decay", "max_iter") if k in found}
    out["optimizer"] = KINDS.get(kind.lower(), kind)
    if out["optimizer"] == "SGD":
        out |= {"weight_decay": out.get("weight_decay", 0.0), "momentum": out.get("momentum", 0.0)}
        out["nesterov"] = kind.lower() == "nesterov"
    policy = found.get("lr_policy", ["fixed"])[-1]
    out["schedule"] = f"caffe {policy}"
    for key in POLICY:
        if key in found:
            out[f"schedule.{key}"] = found[key] if key == "stepvalue" else found[key][-1]
    return Sidecar(out)


def value_of(text: str) -> Any:
    """A number, or the word without its quotes."""
    if text[0] in "\"'":
        return text[1:-1]
    try:
        return float(text)
    except ValueError:
        return text


def is_solver(name: str) -> bool:
    """A .prototxt that says solver."""
    return name.lower().endswith(".prototxt") and "solver" in name.lower().rpartition("/")[2]


READER = Reader("prototxt", is_solver, read)
