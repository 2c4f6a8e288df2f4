"""The layers of a Keras file: what model_config says of them, and the variables that the HDF5 groups hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from smd_analyze.loading.frameworks.keras_names import snake, variable_names, without_output
from smd_analyze.loading.tensors import Place

DEEPEST = 30
MOST_STATES = 100_000
STATISTICS = ("moving_mean", "moving_variance")

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Layer:
    """One layer of model_config: `config` is its own configuration; `trained` is False if it, or a model around it,
    is frozen.
    """

    name: str
    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True


def configured_layers(config: Any, trained: bool = True, depth: int = 0) -> Iterator[Layer]:
    """Every layer of a model's configuration in order, those of nested models and wrappers too."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else inner  # Keras 1 and 2.0: Sequential's config is a list
    if depth > DEEPEST or not isinstance(layers, list):
        return
    for node in layers:
        own = node.get("config") if isinstance(node, dict) else None
        if not isinstance(own, dict):
            if isinstance(node, dict):
                yield from configured_layers(node, trained, depth + 1)
            continue
        name, kind = own.get("name"), node.get("class_name")
        on = trained and own.get("trainable", True) is not False
        if isinstance(name, str) and isinstance(kind, str):
            yield Layer(name, kind.rpartition(">")[2], own, on)
        yield from configured_layers(node, on, depth + 1)
        if isinstance(own.get("layer"), dict):  # TimeDistributed, Bidirectional
            yield from configured_layers({"config": {"layers": [own["layer"]]}}, on, depth + 1)


def read_json(text: Any) -> dict[str, Any]:
    """A configuration as an attribute holds it; {} if there is none, or it is not sound."""
    try:
        found = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def texts_of(tree: Tree, group: str, key: str) -> list[str]:
    """A list of texts in an attribute; long ones are cut into key0, key1, …"""
    found = tree["texts"].get(group, {})
    if isinstance(found.get(key), list):
        return found[key]
    out: list[str] = []
    number = 0
    while isinstance(part := found.get(f"{key}{number}"), list):
        out += part
        number += 1
    return out


def legacy_weights(tree: Tree) -> dict[str, Place]:
    """Variables of a legacy file in the layers' order: the groups' attributes layer_names and weight_names tell it."""
    root = "model_weights" if "model_weights" in tree["texts"] else ""
    found: dict[str, Place] = {}
    for layer in [*texts_of(tree, root, "layer_names"), "top_level_model_weights"]:
        group = f"{root}/{layer}" if root else layer
        for name in texts_of(tree, group, "weight_names"):
            place = tree["datasets"].get(f"{group}/{name}")
            if place is not None:
                bare = "/" not in name and not name.startswith(layer)
                title = f"{layer}/{name}" if bare or name in found else name
                found[title] = place
    names = without_output(found)
    return {names[n]: p for n, p in found.items()}


@dataclass(frozen=True)
class Stored:
    """One `vars` group of Keras 3: its path in the file, the layer's own name, its variables in order."""

    path: str
    name: str
    places: tuple[Place, ...]


def stored_layers(tree: Tree) -> list[Stored]:
    """All groups of variables but the optimizer's, layers of one class in the order of their numbers."""
    found: dict[str, dict[int, Place]] = {}
    for name, place in tree["datasets"].items():
        group, _, number = name.rpartition("/")
        if f"/{group}".endswith("/vars") and number.isdigit() and not name.startswith("optimizer/"):
            found.setdefault(group, {})[int(number)] = place
    out = [
        Stored(g, own_name(tree, g), tuple(places[i] for i in sorted(places)))
        for g, places in sorted(found.items(), key=lambda pair: natural(pair[0]))
    ]
    titles = [s.name for s in out]
    return [s if titles.count(s.name) == 1 else Stored(s.path, s.path.removesuffix("/vars"), s.places) for s in out]


def own_name(tree: Tree, group: str) -> str:
    """The names that layer and surrounding models had in memory, joined; where none was saved, the file's."""
    parts = group.split("/")[:-1]
    names = []
    for depth in range(1, len(parts) + 1):
        text = tree["texts"].get("/".join(parts[:depth]) + "/vars", {}).get("name")
        if isinstance(text, str):
            names.append(text)
        elif depth == len(parts):
            names.append(parts[-1])
    return "/".join(names) or "model"


def natural(path: str) -> list[tuple[int, str]]:
    """conv2d before conv2d_1 before conv2d_10."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", path)]


def word_of(stored: Stored) -> str:
    """The class in snake case as the file's path tells it."""
    return snake(stored.path.split("/")[-2]) if "/" in stored.path else ""


def named_variables(stored: Sequence[Stored], layers: Mapping[str, Layer]) -> dict[str, Place]:
    """Variables of Keras 3 under the layers' names, in the order given."""
    out: dict[str, Place] = {}
    for one in stored:
        layer = layers.get(one.name.rpartition("/")[2])
        word = snake(layer.kind) if layer else word_of(one)
        names = variable_names(word, [p.shape for p in one.places], layer.config if layer else None)
        out |= {f"{one.name}/{n}": p for n, p in zip(names, one.places, strict=True)}
    return out


def in_order_of(stored: Sequence[Stored], layers: Sequence[Layer]) -> list[Stored] | None:
    """The stored layers in the configuration's order; None if one of them is not there."""
    ranks = {layer.name: i for i, layer in reversed(list(enumerate(layers)))}
    if not layers or any(s.name.rpartition("/")[2] not in ranks for s in stored):
        return None
    return sorted(stored, key=lambda s: ranks[s.name.rpartition("/")[2]])


def by_states(stored: Sequence[Stored], states: Sequence[tuple[int, ...]]) -> list[Stored] | None:
    """The order in which the trained variables have the shapes of the optimizer's states, one for each variable.

    Layers of one class keep their order. None unless exactly one order fits.
    """
    queues: dict[str, list[tuple[Stored, tuple[tuple[int, ...], ...]]]] = {}
    for one in stored:
        names = variable_names(word_of(one), [p.shape for p in one.places], None)
        shapes = tuple(p.shape for n, p in zip(names, one.places, strict=True) if n not in STATISTICS)
        if shapes and all("float" in p.dtype for p in one.places):
            queues.setdefault(word_of(one), []).append((one, shapes))
    words = list(queues)
    if sum(len(s) for q in queues.values() for _, s in q) != len(states):
        return None
    seen = 0

    @cache
    def ways(at: tuple[int, ...], done: int) -> tuple[int, int]:
        """(number of orders, at most 2; the class to take first)."""
        nonlocal seen
        seen += 1
        if done == len(states):
            return 1, -1
        total, first = 0, -1
        for k, word in enumerate(words):
            if at[k] < len(queues[word]) and seen < MOST_STATES:
                shapes = queues[word][at[k]][1]
                if tuple(states[done : done + len(shapes)]) == shapes:
                    found = ways((*at[:k], at[k] + 1, *at[k + 1 :]), done + len(shapes))[0]
                    total, first = total + found, k if found else first
        return min(total, 2), first

    at, done, out = tuple(0 for _ in words), 0, []
    if len(stored) > 400 or ways(at, 0)[0] != 1 or seen >= MOST_STATES:
        return None
    while done < len(states):
        k = ways(at, done)[1]
        one, shapes = queues[words[k]][at[k]]
        out.append(one)
        at, done = (*at[:k], at[k] + 1, *at[k + 1 :]), done + len(shapes)
    return [*out, *(s for s in stored if s not in out)]
