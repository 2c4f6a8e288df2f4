"""Keras: legacy .h5 (1 to 3, tf.keras), .weights.h5 and .keras. Layers' own names, optimizer, configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import keras_training
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts
from smd_analyze.loading.frameworks.keras_layers import (
    STATISTICS,
    Layer,
    by_states,
    configured_layers,
    in_order_of,
    legacy_weights,
    named_variables,
    read_json,
    stored_layers,
    texts_of,
)
from smd_analyze.loading.frameworks.keras_names import averages, slots, slots_in_order, with_axes, without_output
from smd_analyze.loading.frameworks.keras_states import Saved, saved_optimizer, shapes_of_trained, states_of
from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import number_of
from smd_analyze.records.run import GraphHint, Setting

NUMBERED = re.compile(r"_\d+$")
COUNTS = ("iteration", "iterations", "iter")
RATES = ("learning_rate", "lr")


def matches(document: Document) -> bool:
    """The formats that Keras alone writes."""
    return document.format in ("Keras HDF5", "Keras archive")


def read_parts(document: Document) -> Parts:
    """Weights under the layers' names, in the layers' order where the file tells it, and what trained them."""
    tree = document.tree
    texts = tree["texts"].get("", {})
    config = tree.get("config") or read_json(texts.get("model_config"))
    layers = list(configured_layers(config))
    where = "config.json" if "config" in tree else "model_config"
    graphs = (GraphHint("keras config", f"{document.path}, {where}", partial(dict, config)),) if layers else ()
    if any("/vars/" in f"/{name}" for name in tree["datasets"]):
        optimizer = (config.get("compile_config") or {}).get("optimizer")
        return replace(parts_of_vars(document, layers, optimizer), graphs=graphs)
    training = read_json(texts.get("training_config"))
    weights = legacy_weights(tree)
    states = legacy_states(tree)
    iterations = next((p for n, p in states.items() if n.rpartition("/")[2] in COUNTS and not p.shape), None)
    rate = next((p for n, p in states.items() if n.rpartition("/")[2] in RATES and not p.shape), None)
    trained = trained_of(weights, layers)
    own = slots(states, trained) or numbered_slots([p for p in states.values() if p.shape], trained, training)
    optimizer = unwrapped(training.get("optimizer_config"))
    every = number_of((optimizer.get("config") or {}).get("gradient_accumulation_steps"))
    saved = Saved(iterations=iterations, rate=rate, every=max(int(every or 1), 1))
    parts = assembled(weights, True, layers, optimizer, "training_config", saved, own)
    average = averages(states, trained)
    return replace(parts, graphs=graphs, variants={"ema": average} if average else {})


def unwrapped(optimizer: Any) -> dict[str, Any]:
    """The optimizer inside a LossScaleOptimizer; {} if there is none."""
    while isinstance(optimizer, dict) and isinstance(optimizer.get("config"), dict):
        inner = optimizer["config"].get("inner_optimizer")
        if not isinstance(inner, dict):
            return optimizer
        optimizer = inner
    return {}


def legacy_states(tree: Mapping[str, Any]) -> dict[str, Place]:
    """The optimizer's variables in their order."""
    names = texts_of(tree, "optimizer_weights", "weight_names")
    found = {
        n: tree["datasets"][f"optimizer_weights/{n}"] for n in names if f"optimizer_weights/{n}" in tree["datasets"]
    }
    short = without_output(found)
    return {short[n]: p for n, p in found.items()}


def numbered_slots(
    states: Sequence[Place], trained: Mapping[str, Place], training: Mapping[str, Any]
) -> dict[str, dict[str, Place]]:
    """Keras 2's nameless Variable_17: Adam's first moments, then its second, then those of AMSGrad (or stubs)."""
    kind = (training.get("optimizer_config") or {}).get("class_name")
    found = slots_in_order(states[: 2 * len(trained)], trained, 2, interleaved=False) if kind == "Adam" else {}
    return {n: {"exp_avg": first, "exp_avg_sq": second} for n, (first, second) in found.items()}


def parts_of_vars(document: Document, layers: list[Layer], optimizer: Any) -> Parts:
    """Keras 3: numbered variables, named after the layers."""
    tree = document.tree
    saved = saved_optimizer(tree, optimizer)
    stored = stored_layers(tree, layers)
    kinds = {layer.name: layer for layer in layers}
    count = len(trained_of(named_variables(stored, kinds), layers))
    ranked = in_order_of(stored, layers) or by_states(stored, shapes_of_trained(saved, count))
    weights = named_variables(ranked or stored, kinds)
    states, average = states_of(saved, trained_of(weights, layers)) if ranked else ({}, {})
    told = {"class_name": saved.kind, "config": saved.config} if saved.kind else None
    classes = {
        s.name: NUMBERED.sub("", s.path.split("/")[-2]) for s in stored if s.path.split("/")[-3:-2] == ["layers"]
    }
    where = "compile_config" if saved.config else f"the name of {saved.where}"
    parts = assembled(weights, ranked is not None, layers, told, where, saved, states, classes)
    return replace(parts, variants={"ema": average}) if average else parts


def trained_of(weights: Mapping[str, Place], layers: Sequence[Layer]) -> dict[str, Place]:
    """What the optimizer trains: neither statistics nor frozen layers nor counters."""
    frozen = {layer.name for layer in layers if not layer.trained}
    return {
        n: p
        for n, p in weights.items()
        if p.dtype in FLOATING and n.rpartition("/")[2] not in STATISTICS and not frozen.intersection(n.split("/"))
    }


def assembled(
    weights: Mapping[str, Place],
    ordered: bool,
    layers: Sequence[Layer],
    optimizer: Any,
    where: str,
    saved: Saved,
    states: Mapping[str, Mapping[str, Place]],
    classes: Mapping[str, str] = MappingProxyType({}),
) -> Parts:
    """The parts. Names in alphabetical order say that the layers' order is not known.

    `classes`: layer → class, as the file's own names for the groups tell; the configuration goes before it.
    """
    told = optimizer if isinstance(optimizer, dict) else {}
    settings: list[Setting]
    settings, unread = keras_training.optimizer_settings(told, where, saved.iterations, saved.rate, saved.every)
    updates = saved.updates
    trained = trained_of(weights, layers)
    decoupled = any(s.name == "decoupled_weight_decay" for s in settings)
    groups, decay, findings = keras_training.regularized(layers, trained, decoupled, "model_config")
    if not groups and len(trained) < sum(
        p.dtype in FLOATING and n.rpartition("/")[2] not in STATISTICS for n, p in weights.items()
    ):
        groups = {"trained": tuple(trained)}
    if layers and not decay and not decoupled and told.get("config"):
        source = f"{where} and model_config: neither weight_decay nor an L2 regularizer"
        settings.append(Setting("weight_decay", 0.0, None, "", "in force", source, keras_training.LAST))
    kinds = {**classes, **{layer.name: layer.kind for layer in layers}}
    named = with_axes(weights, kinds, {n.name: e for n in layers if isinstance(e := n.config.get("equation"), str)})
    if not ordered:
        named = dict(sorted(named.items()))
    source = "the optimizer's iterations in the file" + (f" / {saved.every} accumulated" if saved.every > 1 else "")
    facts = (Fact(updates, STEPS, source),) if updates is not None else ()
    return Parts(
        weights=named,
        where="weights",
        facts=facts,
        ordered=True,
        told=keras_training.told(groups, states, [*settings, *decay], unread, findings, updates),
    )


FRAMEWORK = Framework("keras", matches, read_parts)
