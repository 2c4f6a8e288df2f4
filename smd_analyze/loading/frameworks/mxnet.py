"""MXNet (Gluon, Module): flat names, axes as in torch, `arg:` and `aux:` before exported ones; .states beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST, laid_out
from smd_analyze.loading.tensors.inert_objects import Inert, Span
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.units.twins import OPTIMIZER
from smd_analyze.records.run import Setting

TWIN_FILE = 1  # the .states come behind the weights
KEPT = {"sgd": ("velocity",), "nag": ("velocity",), "adam": ("exp_avg", "exp_avg_sq"),
        "adamw": ("exp_avg", "exp_avg_sq"), "lamb": ("exp_avg", "exp_avg_sq")}  # fmt: skip
STATISTICS = re.compile(r"(^|[._])(running|moving)_(mean|var)$")
NAMES = {"lr": "learning_rate", "wd": "weight_decay", "momentum": "momentum", "beta1": "beta1", "beta2": "beta2",
         "epsilon": "eps"}  # fmt: skip


def matches(document: Document) -> bool:
    """MXNet's own format."""
    return document.format == "mxnet"


def read_parts(document: Document) -> Parts:
    """Weights and running statistics; learning rate, decay and number of updates from the pickled optimizer."""
    own = {k: v for k, v in document.tree.items() if type(v) is Place}
    short = {k: k.removeprefix("arg:").removeprefix("aux:") for k in own}
    names = short if len(set(short.values())) == len(short) else {k: k for k in own}
    found = {names[k]: p for k, p in own.items()}
    buffers = {names[k]: p for k, p in own.items() if STATISTICS.search(k) or k.startswith("aux:")}
    state = optimizer_in(document.tree.get(OPTIMIZER))
    settings: list[tuple[Setting, Place | None]] = []
    facts: list[Fact] = []
    states: dict[str, dict[str, Place]] = {}
    if state is not None:
        kind = state.name.rpartition(" ")[2]
        settings += [(setting, None) for setting in settings_of(state)]
        settings.append((Setting("optimizer", None, kind, "", "in force", "the class in the .states"), None))
        states = states_of(document.tree.get(OPTIMIZER), {n: p for n, p in found.items() if n not in buffers}, state)
        step = plain.number(state.attributes.get("num_update"))
        if step is not None:
            facts.append(Fact(step, STEPS, "num_update in the .states"))
    return Parts(
        laid_out({n: p for n, p in found.items() if n not in buffers}, axes),
        facts=tuple(facts),
        buffers=buffers,
        told=told(states, settings),
        torch_like=False,
    )


def settings_of(optimizer: Inert) -> list[Setting]:
    """The optimizer's numbers. A scheduler keeps the rate that it gave last as `base_lr`; `lr` is then the first."""
    held, out = optimizer.attributes, []
    for key, name in NAMES.items():
        value, source, kind = held.get(key), f"{key} of the optimizer in the .states", "in force"
        schedule = held.get("lr_scheduler")
        if key == "lr" and type(schedule) is Inert:
            source = "base_lr of the lr_scheduler in the .states"
            value = schedule.attributes.get("base_lr")
            warm = plain.number(schedule.attributes.get("warmup_steps")) or 0
            count = plain.number(held.get("num_update")) or 0
            kind = "in force" if isinstance(warm, int) and isinstance(count, int) and count > warm else "configured"
            out.append(Setting("schedule", None, schedule.name.rpartition(" ")[2], "", "configured", source))
        if isinstance(value, int | float):
            out.append(Setting(name, float(value), None, "", kind, source, "last update"))
    return out


def states_of(tree: object, weights: Mapping[str, Place], optimizer: Inert) -> dict[str, dict[str, Place]]:
    """Parameter → its moments; SGD's is a velocity, which is added to the weights.

    The .states number the parameters: by `idx2name` if that was saved. Gluon sorts them by names that are in no file:
    then only those are told whose size no other has.
    """
    saved = tree[0] if isinstance(tree, tuple | list) and tree else tree
    labels = KEPT.get(optimizer.name.rpartition(" ")[2].lower())
    if not isinstance(saved, dict) or labels is None:
        return {}
    named = optimizer.attributes.get("idx2name")
    sizes = {n: header_of(p) + p.nbytes for n, p in weights.items()}
    held = {i: [a for a in (v if isinstance(v, tuple | list) else (v,)) if size_of(a)] for i, v in saved.items()}
    first = {i: size_of(arrays[0]) for i, arrays in held.items() if arrays}
    out: dict[str, dict[str, Place]] = {}
    for index, size in first.items():
        same = [n for n, other in sizes.items() if other == size]
        alone = len(same) == 1 and list(first.values()).count(size) == 1
        name = named.get(index) if isinstance(named, dict) and named else same[0] if alone else None
        arrays = held[index][: len(labels)]
        if isinstance(name, str) and [size_of(a) for a in arrays] == [sizes.get(name)] * len(labels):
            out[name] = {label: state_at(a, weights[name]) for label, a in zip(labels, arrays, strict=True)}
    return out


def header_of(weight: Place) -> int:
    """Bytes before the elements of a saved NDArray: version, storage, axes, shape, device (2), type."""
    return 24 + 8 * len(weight.shape)


def size_of(array: object) -> int:
    """Bytes of a pickled NDArray, 0 for anything else."""
    raw = array.state.get("handle") if type(array) is Inert and isinstance(array.state, dict) else None
    return raw.stop - raw.start if type(raw) is Span else len(raw) if isinstance(raw, bytes) else 0


def state_at(array: Any, weight: Place) -> Place:
    """The elements of a pickled NDArray of the weight's shape and type."""
    raw, header = array.state["handle"], header_of(weight)
    if isinstance(raw, bytes):
        return replace(weight, start=0, file=TWIN_FILE, inline=raw[header:], strides=None)
    return replace(weight, start=raw.start + header, file=TWIN_FILE, strides=None)


def optimizer_in(tree: object) -> Inert | None:
    """The pickled optimizer: Gluon saves (states, optimizer)."""
    parts = tree if isinstance(tree, tuple | list) else (tree,)
    return next((p for p in parts if type(p) is Inert and "num_update" in p.attributes), None)


def axes(name: str, place: Place, siblings: object) -> str | None:
    """As in torch, by the name's end."""
    if len(place.shape) == 1 or (name.endswith("weight") and "embed" not in name):
        return OUT_FIRST.get(len(place.shape))
    return None


FRAMEWORK = Framework("mxnet", matches, read_parts)
