"""Paddle: .pdparams with a .pdopt beside it. Kernels are (out, in, …), matrices of linear layers are (in, out)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import EPOCHS, STEPS, TICKS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST, laid_out
from smd_analyze.loading.roles.names import RECURRENT
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict
from smd_analyze.loading.units.twins import OPTIMIZER
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Setting

TITLES = "StructuredToParameterName@@"  # name in the model → name that the optimizer uses
INFERENCE = "paddle inference"
TUPLES = ("builtins tuple", "__builtin__ tuple")
STATISTICS = re.compile(r"(^|\.)_(mean|variance)$")
COUNTS = {"global_step": STEPS, "step": STEPS, "iteration": STEPS, "iter": STEPS, "epoch": EPOCHS}
STATES = {
    "velocity_0": "momentum_buffer", "moment1_0": "exp_avg", "moment2_0": "exp_avg_sq", "moment_0": "sum",
}  # fmt: skip


def matches(document: Document) -> bool:
    """A pickle with Paddle's table of names (or such a part), or called .pdparams; the arrays of paddle.jit.save."""
    if document.format == INFERENCE:
        return True
    if document.format != "pickle" or not isinstance(document.tree, dict):
        return False
    parts = (document.tree, *(unpacked(n) for v in document.tree.values() if (n := as_dict(v))))
    return any(TITLES in part for part in parts) or document.path.endswith(".pdparams")


def read_parts(document: Document) -> Parts:
    """Weights, running statistics, and from the .pdopt the accumulators and the scheduler's learning rate."""
    if document.format == INFERENCE:
        return inference_parts(document)
    model, where, optimizer = model_and_optimizer(document.tree)
    titles = as_dict(model.get(TITLES)) or {}
    found = {k: v for k, v in model.items() if isinstance(k, str) and type(v) is Place}
    shared = once(found, titles)
    found = {k: v for k, v in found.items() if k not in shared}
    counted = {k: n for k in COUNTS if where and (n := plain.number(document.tree.get(k))) is not None}
    schedule = as_dict(optimizer.get("LR_Scheduler")) or {}
    rate, ticks = schedule.get("last_lr"), plain.number(schedule.get("last_epoch"))
    settings: list[tuple[Setting, Place | None]] = []
    if isinstance(rate, int | float):
        source = "LR_Scheduler.last_lr in the .pdopt"
        settings.append((Setting("learning_rate", float(rate), None, "", "in force", source, "next update"), None))
    states = accumulators(optimizer, titles)
    kept = {kind for state in states.values() for kind in state}
    kind = "SGD" if "momentum_buffer" in kept else "Adam or AdamW" if "exp_avg_sq" in kept else None
    if kind:
        settings.append((Setting("optimizer", None, kind, "", "inferred", "accumulators in the .pdopt"), None))
    return Parts(
        laid_out({n: p for n, p in found.items() if not STATISTICS.search(n)}, axes_of(titles)),
        where,
        facts=(
            *(Fact(n, COUNTS[k], f"{k} in the file") for k, n in counted.items()),
            *((Fact(ticks, TICKS, "LR_Scheduler.last_epoch"),) if ticks is not None else ()),
        ),
        buffers={n: p for n, p in found.items() if STATISTICS.search(n)},
        told=told(states, settings),
        torch_like=False,
        findings=tuple(
            Finding(
                "tied-parameter", "note", name, f"is the same tensor as {first}; it is analysed once, under that name"
            )
            for name, first in shared.items()
        ),
    )


def once(found: Mapping[str, Place], titles: Mapping[str, Any]) -> dict[str, str]:
    """Name → first name of the same tensor: a recurrent layer's stand under two names each, with one title."""
    first: dict[tuple[str, tuple[int, ...]], str] = {}
    out: dict[str, str] = {}
    for name, place in found.items():
        if isinstance(title := titles.get(name), str):
            owner = first.setdefault((title, place.shape), name)
            if owner != name:
                out[name] = owner
    return out


def model_and_optimizer(tree: Mapping[str, Any]) -> tuple[Mapping[str, Any], str, Mapping[str, Any]]:
    """(the model's arrays, the key that they stand under, the optimizer's): in two files, or in one nested dict."""
    beside = as_dict(tree.get(OPTIMIZER)) or {}
    if TITLES in tree or any(type(v) is Place for v in tree.values()):
        return tree, "", beside
    inner = {k: unpacked(n) for k, v in tree.items() if isinstance(k, str) and (n := as_dict(v)) and k != OPTIMIZER}
    states = [k for k, n in inner.items() if "LR_Scheduler" in n or any(str(x).endswith(tuple(STATES)) for x in n)]
    models = [k for k, n in inner.items() if TITLES in n and k not in states]
    models = models or [k for k in inner if "opt" not in k and k not in states]
    where = max(models, key=lambda k: sum(type(v) is Place for v in inner[k].values()), default="")
    named = (as_dict(inner[where].get(TITLES)) or {}).values() if where else ()
    own = next((n for n in inner.values() if any(f"{name}_{e}" in n for name in named for e in STATES)), {})
    if not own:
        own = next((n for k, n in inner.items() if k in states or "opt" in k), {})
    return inner.get(where, {}), where, own or beside


def unpacked(node: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a nested dict, whose tensors are saved as tuple((name in the optimizer, array)): arrays and names."""
    out: dict[str, Any] = {}
    titles: dict[str, str] = {}
    for key, value in node.items():
        pair = value.args[0] if type(value) is Inert and value.name in TUPLES and value.args else None
        if isinstance(pair, tuple | list) and len(pair) == 2 and type(pair[1]) is Place:
            out[key] = pair[1]
            titles[key] = str(pair[0])
        else:
            out[key] = value
    return {TITLES: titles, **out} if titles else out


def inference_parts(document: Document) -> Parts:
    """Arrays under the optimizer's names: linear_0.w_0 is the weight, batch_norm2d_0.w_1 and w_2 are statistics."""
    arrays, order = document.tree["arrays"], document.tree["order"]
    weights: dict[str, Place] = {}
    buffers: dict[str, Place] = {}
    for name in order or arrays:
        layer, dot, leaf = name.rpartition(".")
        statistics = "norm" in layer and leaf in ("w_1", "w_2")
        titled = {"w_0": "weight", "b_0": "bias", "w_1": "_mean", "w_2": "_variance"}
        title = titled.get(leaf, leaf) if statistics or leaf.endswith("_0") else leaf
        place = arrays[name]
        axes = axes_of({title: layer})(title, place, {}) if dot else None
        (buffers if statistics else weights)[f"{layer}.{title}" if dot else name] = replace(place, layout=axes)
    return Parts(weights, ordered=bool(order), buffers=buffers, torch_like=False)


def axes_of(titles: Mapping[str, Any]) -> Any:
    """The layout rule: the optimizer's names tell linear layers (linear_0.w_0) from embeddings."""

    def axes(name: str, place: Place, siblings: Mapping[str, Any]) -> str | None:
        kind = str(titles.get(name, ""))
        if len(place.shape) == 2:
            if RECURRENT.search(name):
                return "OI"  # as torch has them
            return None if kind.startswith("embedding") or "emb" in name else "IO"
        if "transpose" in kind and len(place.shape) > 2:
            return "IO" + "DHW"[5 - len(place.shape) :]
        return OUT_FIRST.get(len(place.shape))

    return axes


def accumulators(optimizer: Mapping[str, Any], titles: Mapping[str, Any]) -> dict[str, dict[str, Place]]:
    """Parameter → its accumulators under torch's names, matched by the optimizer's own name for it."""
    out: dict[str, dict[str, Place]] = {}
    for name, own in titles.items():
        for ending, title in STATES.items():
            place = optimizer.get(f"{own}_{ending}")
            if type(place) is Place:
                out.setdefault(name, {})[title] = place
    return out


FRAMEWORK = Framework("paddle", matches, read_parts)
