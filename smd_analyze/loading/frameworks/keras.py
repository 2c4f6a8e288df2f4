"""Keras: legacy .h5 (1 to 3, tf.keras), .weights.h5 and .keras. Layers' own names, optimizer, configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smd_analyze.loading.dtypes import FLOATING
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
from smd_analyze.loading.frameworks.keras_names import slots, slots_in_order, snake, with_axes, without_output
from smd_analyze.loading.tensors import Place
from smd_analyze.records.run import Setting

COUNTS = ("iteration", "iterations", "iter")
RATES = ("learning_rate", "lr")
NAMES = {
    "sgd": "SGD", "adam": "Adam", "adam_w": "AdamW", "adamw": "AdamW", "rmsprop": "RMSprop", "nadam": "Nadam",
    "lion": "Lion", "adagrad": "Adagrad", "adadelta": "Adadelta", "adamax": "Adamax", "ftrl": "Ftrl",
    "adafactor": "Adafactor", "lamb": "Lamb", "muon": "Muon",
}  # fmt: skip


def matches(document: Document) -> bool:
    """The formats that Keras alone writes."""
    return document.format in ("Keras HDF5", "Keras archive")


def read_parts(document: Document) -> Parts:
    """Weights under the layers' names, in the layers' order where the file tells it, and what trained them."""
    tree = document.tree
    texts = tree["texts"].get("", {})
    config = tree.get("config") or read_json(texts.get("model_config"))
    layers = list(configured_layers(config))
    if any("/vars/" in f"/{name}" for name in tree["datasets"]):
        return parts_of_vars(document, layers, (config.get("compile_config") or {}).get("optimizer"))
    training = read_json(texts.get("training_config"))
    weights = legacy_weights(tree)
    states = legacy_states(tree)
    iterations = next((p for n, p in states.items() if n.rpartition("/")[2] in COUNTS and not p.shape), None)
    rate = next((p for n, p in states.items() if n.rpartition("/")[2] in RATES and not p.shape), None)
    trained = trained_of(weights, layers)
    own = slots(states, trained) or numbered_slots([p for p in states.values() if p.shape], trained, training)
    return assembled(
        document, weights, True, layers, training.get("optimizer_config"), "training_config", iterations, rate, own
    )


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
    """Keras 3: numbered variables. The optimizer holds its iterations, perhaps a learning rate, then the states."""
    tree = document.tree
    group = "optimizer/vars"
    count = sum(name.startswith(group + "/") for name in tree["datasets"])
    saved = [p for i in range(count) if (p := tree["datasets"].get(f"{group}/{i}")) is not None]
    iterations = saved[0] if saved and saved[0].shape == () and saved[0].dtype not in FLOATING else None
    states = saved[1:] if iterations else []
    rate = states[0] if states and states[0].shape == () and states[0].dtype in FLOATING else None
    states = states[1:] if rate else states
    name = snake(str(tree["texts"].get(group, {}).get("name", "")))
    kind = optimizer.get("class_name") if isinstance(optimizer, dict) else NAMES.get(name)
    per = {"Adam": 2, "AdamW": 2}.get(kind or "", 1)
    stored = stored_layers(tree)
    ranked = in_order_of(stored, layers) or by_states(stored, [p.shape for p in states[::per]])
    weights = named_variables(ranked or stored, {layer.name: layer for layer in layers})
    trained = trained_of(weights, layers)
    own: dict[str, dict[str, Place]] = {}
    if ranked and kind in ("Adam", "AdamW"):
        pairs = slots_in_order(states, trained, 2, interleaved=True)
        own = {n: {"exp_avg": first, "exp_avg_sq": second} for n, (first, second) in pairs.items()}
    elif ranked and kind == "SGD":
        own = {n: {"velocity": p[0]} for n, p in slots_in_order(states, trained, 1, interleaved=True).items()}
    told = optimizer if isinstance(optimizer, dict) else None
    if told is None and kind:
        told = {"class_name": kind}
    where = "compile_config" if isinstance(optimizer, dict) else f"the name of {group}"
    return assembled(document, weights, ranked is not None, layers, told, where, iterations, rate, own)


def trained_of(weights: Mapping[str, Place], layers: Sequence[Layer]) -> dict[str, Place]:
    """What the optimizer trains: neither statistics nor frozen layers nor counters."""
    frozen = {layer.name for layer in layers if not layer.trained}
    return {
        n: p
        for n, p in weights.items()
        if p.dtype in FLOATING and n.rpartition("/")[2] not in STATISTICS and not frozen.intersection(n.split("/"))
    }


def assembled(
    document: Document,
    weights: Mapping[str, Place],
    ordered: bool,
    layers: Sequence[Layer],
    optimizer: Any,
    where: str,
    iterations: Place | None,
    rate: Place | None,
    states: Mapping[str, Mapping[str, Place]],
) -> Parts:
    """The parts. Names in alphabetical order say that the layers' order is not known."""
    told = optimizer if isinstance(optimizer, dict) else {}
    settings: list[Setting]
    settings, unread = keras_training.optimizer_settings(told, where, iterations, rate)
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
    named = with_axes(weights, {layer.name: layer.kind for layer in layers})
    if not ordered:
        named = dict(sorted(named.items()))
    facts = (Fact(iterations, STEPS, "the optimizer's iterations in the file"),) if iterations is not None else ()
    return Parts(
        weights=named,
        where="weights",
        facts=facts,
        ordered=True,
        told=keras_training.told(groups, states, [*settings, *decay], unread, findings, iterations),
    )


FRAMEWORK = Framework("keras", matches, read_parts)
