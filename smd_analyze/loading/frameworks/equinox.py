"""Equinox: numbered arrays (layers of filter_vmap in one), an optimizer's count and moments behind, the user's JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST as LAYOUTS
from smd_analyze.loading.tensors.cutting import cut
from smd_analyze.loading.tensors.places import Place
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Setting

WIDEST = 9  # taps of a one-dimensional convolution


def matches(document: Document) -> bool:
    """Equinox' own format."""
    return document.format == "equinox"


def read_parts(document: Document) -> Parts:
    """The model's arrays; step from the counter or the user's JSON."""
    tree = document.tree
    model, stacks = cut_stacks(tree["model"])
    count = plain.number(tree.get("count"))
    config = tree.get("config")
    config = config if isinstance(config, dict) else {}
    states = {}
    for name, kept in tree.get("moments", {}).items():
        for kind, place in kept.items():
            for title, part in layers_of(name, place, stacks.get(name, 0)):
                states.setdefault(title, {})[kind] = part
    facts = [Fact(count, STEPS, "optax' count in the file")] if count is not None else []
    kinds = {kind for state in states.values() for kind in state}
    if type(count) is Place:
        states = {n: {**s, "step": count} for n, s in states.items()}
    inferred = Setting("optimizer", None, "Adam or AdamW", "", "inferred", "the moments behind the weights")
    return Parts(
        model,
        facts=(*facts, *plain.facts_inside(config, (), ())),
        configured={k: v for k, v in config.items() if isinstance(v, str | int | float)},
        configured_in="the first line",
        told=told(states, ((inferred, None),) if len(kinds) == 2 else (), findings(stacks)),
        torch_like=False,
    )


def cut_stacks(model: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """(the model with stacked arrays cut into weight_1.0, weight_1.1, …; array → its number of layers).

    Layers made by filter_vmap have an axis more. It shows where a matrix of three axes is followed by a bias of two
    (a convolution's is (out, 1)), or where three arrays and more in a row begin with one small number. What stands
    between such arrays, or beside them with that beginning, is stacked as well.
    """
    names = [n for n, p in model.items() if type(p) is Place and len(p.shape) > 1]
    shapes = [model[n].shape for n in names]
    pairs = [i for i, (a, b) in enumerate(pairwise(shapes)) if len(a) > 2 and b == a[:-1] and b[-1] != 1]
    count = Counter(shapes[i][0] for i in pairs)
    seen = [i for i in pairs if shapes[i][-1] > WIDEST or count[shapes[i][0]] > 1]  # a single one may be a convolution
    for i, shape in enumerate(shapes):
        alike = [len(s) == 3 and s[0] == shape[0] < min(s[1:]) and s[2] > WIDEST for s in shapes[i : i + 3]]
        seen += [i, i + 1, i + 2] if len(alike) == 3 and all(alike) else []
    stacks: dict[str, int] = {}
    for i in seen:
        layers = shapes[i][0]
        for side in (range(i, len(names)), range(i, -1, -1)):
            for k in side:
                if shapes[k][0] != layers:
                    break
                stacks[names[k]] = layers
    cut_up = {t: p for n, v in model.items() for t, p in layers_of(n, v, stacks.get(n, 0))}
    return cut_up, stacks


def layers_of(name: str, place: Any, layers: int) -> list[tuple[str, Any]]:
    """The array itself, or its layers."""
    if not layers or type(place) is not Place:
        return [(name, place)]
    parts = [cut(place, 0, i) for i in range(layers)]
    return [(f"{name}.{i}", replace(p, layout=LAYOUTS.get(len(p.shape)))) for i, p in enumerate(parts)]


def findings(stacks: Mapping[str, int]) -> tuple[Finding, ...]:
    """Which arrays were cut."""
    if not stacks:
        return ()
    names = list(stacks)
    words = f"and {len(names) - 1} more arrays seem to" if len(names) > 1 else "seems to"
    words += f" hold {stacks[names[0]]} layers each, along axis 0: they are analysed one by one"
    return (Finding("stacked-layers", "note", names[0], words),)


FRAMEWORK = Framework("equinox", matches, read_parts)
