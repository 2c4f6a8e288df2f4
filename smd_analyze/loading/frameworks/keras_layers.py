"""The layers of a Keras file: what model_config says of them, and the variables that the HDF5 groups hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from smd_analyze.loading.frameworks.keras_names import KNOWN, snake, variable_names, without_output
from smd_analyze.loading.roles.names import natural
from smd_analyze.loading.tensors.places import Place

DEEPEST = 30
MOST_STATES = 100_000
STATISTICS = ("moving_mean", "moving_variance")

LISTS = ("layers", "_layer_checkpoint_dependencies")
NO_LAYERS = ("optimizer/", "metrics/")
PARTS = {"query": 0, "key": 1, "value": 2, "attention_output": 3, "output": 3, "forward": 0, "backward": 1}
"""Layers inside one that is built of several: MultiHeadAttention, Bidirectional."""

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


def stored_layers(tree: Tree, layers: Sequence[Layer] = ()) -> list[Stored]:
    """All groups of variables but the optimizer's, layers of one class in the order of their numbers."""
    found: dict[str, dict[int, Place]] = {}
    for name, place in tree["datasets"].items():
        group, _, number = name.rpartition("/")
        if f"/{group}".endswith("/vars") and number.isdigit() and not name.startswith(NO_LAYERS):
            found.setdefault(group, {})[int(number)] = place
    titles = listed_names(layers) if not any("name" in t for g, t in tree["texts"].items() if g in found) else {}
    out = [
        Stored(g, own_name(tree, g, titles), tuple(places[i] for i in sorted(places)))
        for g, places in sorted(found.items(), key=lambda pair: natural(pair[0]))
    ]
    named = [s.name for s in out]
    return [s if named.count(s.name) == 1 else Stored(s.path, s.path.removesuffix("/vars"), s.places) for s in out]


def own_name(tree: Tree, group: str, titles: Mapping[str, str]) -> str:
    """The names that layer and surrounding models had in memory, joined; where none was saved, the file's.

    Keras 2 saves none: `titles` are those of the configuration, by the file's names for the layers.
    """
    parts = group.split("/")[:-1]
    names = []
    for depth in range(1, len(parts) + 1):
        text = tree["texts"].get("/".join(parts[:depth]) + "/vars", {}).get("name")
        if isinstance(text, str):
            names.append(text)
        elif titles and parts[depth - 1] not in LISTS:
            names.append(titles.get(parts[depth - 1], parts[depth - 1]) if depth == 2 else parts[depth - 1])
        elif depth == len(parts):
            names.append(parts[-1])
    return "/".join(names) or "model"


def listed_names(layers: Sequence[Layer]) -> dict[str, str]:
    """conv2d_1, as a file calls the second Conv2D of a model's list → its name in the configuration."""
    seen: dict[str, int] = {}
    out: dict[str, str] = {}
    for layer in layers:
        word = snake(layer.kind)
        number = seen.get(word, 0)
        out[f"{word}_{number}" if number else word] = layer.name
        seen[word] = number + 1
    return out


def named_by_class(stored: Stored) -> bool:
    """Whether its own name tells its class and number: nobody named it."""
    return word_of(stored) == snake(stored.name.rpartition("/")[2])


def word_of(stored: Stored) -> str:
    """The class in snake case: a model's own list names its layers so, a layer that nobody named is called so."""
    parts = stored.path.split("/")
    word = snake(parts[-2]) if len(parts) > 1 else ""
    if word == "cell" and len(parts) > 2:
        word = snake(parts[-3]) + "_cell"
    own = snake(stored.name.rpartition("/")[2])
    listed = len(parts) > 2 and parts[-3] in LISTS
    return own if not listed and KNOWN.search(own) else word


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
    """The stored layers in the configuration's order; None if one of them is not there, or if one layer holds several
    others whose order is not known.
    """
    ranks = {layer.name: i for i, layer in reversed(list(enumerate(layers)))}
    places: dict[str, tuple[int, int]] = {}
    for one in stored:
        names = [re.sub("^backward_", "forward_", n) for n in one.name.split("/")]
        known = next((n for n in reversed(names) if n in ranks), None)
        if known is None:
            return None
        places[one.path] = ranks[known], part_of(one)
    if len(set(places.values())) < len(places):
        return None
    return sorted(stored, key=lambda s: places[s.path])


def part_of(stored: Stored) -> int:
    """The rank of a layer inside the one that holds it, -1 if it is none of the known parts."""
    words = [part_word(n) for n in stored.name.split("/")]
    rank = PARTS.get(words[-1], -1)
    return rank if rank >= 0 else next((PARTS[w] for n in words for w in PARTS if n.startswith(w + "_")), -1)


def part_word(name: str) -> str:
    """`query` of `query`, of `query_1`, and of the `_query_dense` that Keras 2 saves."""
    return snake(name).strip("_").removesuffix("_dense")


def composed(stored: Sequence[Stored]) -> list[list[Stored]]:
    """The stored layers, those of a MultiHeadAttention or Bidirectional together and in its order."""
    groups: dict[str, list[Stored]] = {}
    for one in stored:
        both = re.match(r"(.+)/(forward|backward)_layer/", one.path)
        holder = both[1] if both else one.path.removesuffix("/vars").rpartition("/")[0]
        inside = both or part_word(one.name.rpartition("/")[2]) in PARTS
        groups.setdefault(holder if inside and holder else one.path, []).append(one)
    return [sorted(found, key=part_of) for found in groups.values()]


def by_states(stored: Sequence[Stored], states: Sequence[tuple[int, ...]]) -> list[Stored] | None:
    """The order in which the trained variables have the shapes of the optimizer's states, one for each variable.

    Layers of one class, in alike places, keep the order of their numbers. None unless exactly one order fits.
    """
    queues: dict[str, list[tuple[list[Stored], tuple[tuple[int, ...], ...]]]] = {}
    for group in composed(sorted(stored, key=lambda s: natural(s.name) if named_by_class(s) else natural(s.path))):
        shapes: tuple[tuple[int, ...], ...] = ()
        for one in group:
            names = variable_names(word_of(one), [p.shape for p in one.places], None)
            shapes += tuple(p.shape for n, p in zip(names, one.places, strict=True) if n not in STATISTICS)
        if shapes and all("float" in p.dtype for one in group for p in one.places):
            holder = re.sub(r"_?\d+", "", group[0].path.removesuffix("/vars").rpartition("/")[0])
            queues.setdefault(f"{holder} {word_of(group[0])}", []).append((group, shapes))
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
        group, shapes = queues[words[k]][at[k]]
        out += group
        at, done = (*at[:k], at[k] + 1, *at[k + 1 :]), done + len(shapes)
    return [*out, *(s for s in stored if s not in out)]
