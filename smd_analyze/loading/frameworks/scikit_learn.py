"""scikit-learn's multilayer perceptrons, pickled: coefs_ and intercepts_, and the optimizer that partial_fit keeps.

Their `alpha` is divided by the number of samples in a batch before it acts, so it is no weight decay: none is told.
"""

from __future__ import annotations

from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_LAST, laid_out
from smd_analyze.loading.frameworks.plain import number
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import plain
from smd_analyze.records.run import Kind, Setting

MOMENTS = {"ms": "exp_avg", "vs": "exp_avg_sq", "velocities": "momentum_buffer"}
NUMBERS = {
    "learning_rate": "learning_rate", "learning_rate_init": "learning_rate", "momentum": "momentum",
    "nesterov": "nesterov", "beta_1": "beta1", "beta_2": "beta2", "epsilon": "eps",
}  # fmt: skip


def matches(document: Document) -> bool:
    """An object of scikit-learn with layers of coefficients."""
    tree = document.tree
    return type(tree) is Inert and type(tree.attributes.get("coefs_")) is list and "intercepts_" in tree.attributes


def read_parts(document: Document) -> Parts:
    """Coefficients are (in, out); the optimizer keeps its moments in the order of all coefficients, then intercepts."""
    found: dict[str, Any] = document.tree.attributes
    weights = {
        f"{key}.{i}": place
        for key in ("coefs_", "intercepts_")
        for i, place in enumerate(found[key])
        if type(place) is Place
    }
    optimizer = found.get("_optimizer")
    state = optimizer.attributes if type(optimizer) is Inert else {}
    states: dict[str, dict[str, Place]] = {}
    for key, name in MOMENTS.items():
        moments = state.get(key)
        if type(moments) is list and len(moments) == len(weights):
            for parameter, place in zip(weights, moments, strict=True):
                if type(place) is Place:
                    states.setdefault(parameter, {})[name] = place
    updates = number(state.get("t"))
    facts = (Fact(updates, STEPS, "the optimizer's t in the file"),) if updates else ()
    settings = [(s, None) for s in settings_of(state, optimizer, found)]
    return Parts(laid_out(weights, axes), "coefs_", facts=facts, told=told(states, settings), torch_like=False)


def settings_of(state: dict[str, Any], optimizer: Any, found: dict[str, Any]) -> list[Setting]:
    """What the optimizer holds is in force; without it, what the model was made with."""
    kind: Kind = "in force" if state else "configured"
    where = "_optimizer" if state else "the model"
    out: dict[str, Setting] = {}
    scaled = "ms" in state  # Adam's learning_rate is the initial one times the correction of its moments
    for key, name in NUMBERS.items():
        value = plain((state or found).get(key)) if not (scaled and key == "learning_rate") else None
        if isinstance(value, int | float) and (state or name == "learning_rate"):
            out.setdefault(name, Setting(name, float(value), None, "", kind, f"{where}, {key}"))
    title = optimizer.name.rpartition(".")[2] if type(optimizer) is Inert else str(found.get("solver") or "")
    word = {"AdamOptimizer": "Adam", "SGDOptimizer": "SGD", "adam": "Adam", "sgd": "SGD"}.get(title.split(" ")[-1])
    if word:
        out["optimizer"] = Setting("optimizer", None, word, "", "configured", f"{where}'s class or solver")
    return list(out.values())


def axes(_name: str, place: Place, _siblings: Any) -> str | None:
    """(in, out)."""
    return OUT_LAST.get(len(place.shape))


FRAMEWORK = Framework("scikit-learn", matches, read_parts)
