"""Caffe: weights as the format sorted them, the iteration and the solver's history in the .solverstate beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST
from smd_analyze.loading.roles.names import natural
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.units.twins import OPTIMIZER

HDF5 = "Caffe HDF5"
STATISTICS = ("running_mean", "running_var", "scale_factor")


def matches(document: Document) -> bool:
    """Caffe's own formats."""
    return document.format in ("caffe", HDF5)


def read_parts(document: Document) -> Parts:
    """Weights, BatchNorm's sums as buffers, the iteration, and the solver's history.

    SGD and Nesterov keep one array for each weight, in the net's order; other solvers keep more or another thing,
    which the number of arrays does not always tell: their kind stands in solver.prototxt.
    """
    tree = document.tree
    weights, buffers = blobs(tree["datasets"]) if "datasets" in tree else (tree.get("weights"), tree.get("buffers"))
    state = tree.get(OPTIMIZER)
    step, history = solver_state(state if isinstance(state, dict) else {})
    return Parts(
        weights,
        facts=(Fact(step, STEPS, "iter in the .solverstate"),) if step is not None else (),
        buffers=buffers,
        torch_like=False,
        told=told(updates(history, {**(weights or {}), **(buffers or {})}, weights or {})),
    )


def blobs(datasets: Mapping[str, Place]) -> tuple[dict[str, Place], dict[str, Place]]:
    """(weights, buffers) of data/LAYER/NUMBER; the file does not say the layers' types, the shapes do.

    A vector of one number closes a BatchNorm's three sums; a vector as long as the weight's first axis is its bias.
    """
    layers: dict[str, dict[int, Place]] = {}
    for name, place in datasets.items():
        match = re.fullmatch(r"data/(.+)/(\d+)", name)
        if match:
            layers.setdefault(match[1], {})[int(match[2])] = place
    weights: dict[str, Place] = {}
    buffers: dict[str, Place] = {}
    for layer in sorted(layers, key=natural):
        own = [layers[layer][i] for i in sorted(layers[layer])]
        sums = len(own) == 3 and own[2].shape == (1,) and own[0].shape == own[1].shape and len(own[0].shape) == 1
        for i, place in enumerate(own):
            title = STATISTICS[i] if sums else ("weight", "bias")[i] if i < 2 else f"blob_{i}"
            home = buffers if sums else weights
            home[f"{layer}.{title}"] = replace(place, layout=OUT_FIRST.get(len(place.shape)))
    return weights, buffers


def solver_state(state: Mapping[str, Any]) -> tuple[float | Place | None, list[Place]]:
    """(iteration, history in order) of a .solverstate of either format."""
    datasets = state.get("datasets")
    if not isinstance(datasets, dict):
        history = state.get("history")
        sound = isinstance(history, list) and all(type(p) is Place for p in history)
        return plain.number(state.get("iter")), list(history) if isinstance(history, list) and sound else []
    found = {name: p for name, p in datasets.items() if name.startswith("history/")}
    step = datasets.get("iter")
    return step if type(step) is Place else None, [found[name] for name in sorted(found, key=natural)]


def updates(
    history: Sequence[Place], net: Mapping[str, Place], weights: Mapping[str, Place]
) -> dict[str, dict[str, Place]]:
    """Weight → its array of the history, if there is one for each blob of the net and every size agrees.

    In HDF5 the layers stand by name, not in the net's order: only a size that one blob has tells its array.
    """
    sizes = [prod(p.shape) for p in history]
    names = list(net)
    if len(history) != len(names):
        return {}
    if sizes == [prod(net[n].shape) for n in names]:
        pairs = dict(zip(names, history, strict=True))
    elif sorted(sizes) == sorted(prod(p.shape) for p in net.values()):
        pairs = {n: history[sizes.index(prod(p.shape))] for n, p in net.items() if sizes.count(prod(p.shape)) == 1}
    else:
        return {}
    return {n: {"history": replace(p, shape=net[n].shape)} for n, p in pairs.items() if n in weights}


FRAMEWORK = Framework("caffe", matches, read_parts)
