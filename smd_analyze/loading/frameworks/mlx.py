"""MLX: flat dotted names as in torch, but kernels are (out, height, width, in); the optimizer has a file of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST_IN_LAST, laid_out
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import get
from smd_analyze.loading.units.twins import OPTIMIZER
from smd_analyze.records.run import Setting

MOMENTS = {"m": "exp_avg", "v": "momentum_buffer"}
MULTI = re.compile(r"states\.(\d+)\.(.+)")


def matches(document: Document) -> bool:
    """The format says so: MLX writes that word, or no metadata and unpadded headers, which nobody else does."""
    return isinstance(document.tree, dict) and get(document.tree, "__metadata__.format") == "mlx"


def read_parts(document: Document) -> Parts:
    """Weights of the plain layout with MLX' axes; moments, learning rate and step of the optimizer's file."""
    parts = plain.read_parts(document)
    facts = parts.facts
    states: dict[str, dict[str, Place]] = {}
    groups: dict[str, tuple[str, ...]] = {}
    settings: list[tuple[Setting, Place | None]] = []
    for group, optimizer in optimizers(document.tree.get(OPTIMIZER) or {}).items():
        own = states_of(optimizer)
        step = plain.number(optimizer.get("step"))
        if step is not None and not group.strip("0"):
            facts = (Fact(step, STEPS, "step in the optimizer's file"), *facts)
        states |= {n: {**s, "step": step} for n, s in own.items()} if type(step) is Place else own
        groups |= {group: tuple(own)} if group else {}
        rate = optimizer.get("learning_rate")
        if type(rate) is Place and rate.shape == ():
            source = "learning_rate in the optimizer's file"
            settings.append((Setting("learning_rate", None, None, group, "in force", source, "last update"), rate))
        kind, source = kind_of(own)
        if kind:
            settings.append((Setting("optimizer", None, kind, group, "inferred", source), None))
    return replace(
        parts,
        weights=laid_out(parts.weights, lambda name, place, _: axes(name, place)),
        facts=facts,
        told=replace(told(states, settings), groups=groups),
        torch_like=False,
    )


def optimizers(saved: dict[Any, Any]) -> dict[str, dict[str, Any]]:
    """Parameter group → names in the optimizer's file; several groups only for MLX' MultiOptimizer."""
    out: dict[str, dict[str, Any]] = {}
    for key, value in saved.items():
        nested = MULTI.fullmatch(str(key))
        out.setdefault(nested[1] if nested else "", {})[nested[2] if nested else str(key)] = value
    return dict(sorted(out.items()))


def states_of(optimizer: dict[str, Any]) -> dict[str, dict[str, Place]]:
    """Parameter → its moments. `v` is the second moment beside an `m`, else momentum."""
    out: dict[str, dict[str, Place]] = {}
    both = any(k.endswith(".m") for k in optimizer)
    for key, value in optimizer.items():
        name, _, kind = key.rpartition(".")
        if type(value) is Place and name and kind in MOMENTS:
            out.setdefault(name, {})["exp_avg_sq" if both and kind == "v" else MOMENTS[kind]] = value
    return out


def kind_of(states: Mapping[str, Mapping[str, Place]]) -> tuple[str, str]:
    """(optimizer, how that is known): MLX saves no class, and several keep an array of one name."""
    kept = {k for state in states.values() for k in state}
    source = "names in the optimizer's file"
    if "exp_avg" in kept:
        return ("Adam or AdamW" if "exp_avg_sq" in kept else "Lion"), source
    return ("SGD", f"{source}; Muon, RMSprop and Adagrad have the same") if kept else ("", "")


def axes(name: str, place: Place) -> str | None:
    """Output unit first, input channel last; embeddings have no output unit."""
    if len(place.shape) == 1 or (name.endswith(("weight", "_weight")) and not plain_embedding(name)):
        return OUT_FIRST_IN_LAST.get(len(place.shape))
    return None


def plain_embedding(name: str) -> bool:
    """An embedding's table by its name."""
    return "emb" in name.rpartition(".")[0].rpartition(".")[2]


FRAMEWORK = Framework("mlx", matches, read_parts)
