"""MXNet (Gluon, Module): flat names, axes as in torch, `arg:` and `aux:` before exported ones; .states beside them."""

from __future__ import annotations

import re

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST, laid_out
from smd_analyze.loading.inert_objects import Inert
from smd_analyze.loading.tensors import Place
from smd_analyze.records.run import Setting

OPTIMIZER = "__optimizer__"
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
    if state is not None:
        for key, name in NAMES.items():
            value = state.attributes.get(key)
            if isinstance(value, int | float):
                source = f"{key} of the optimizer in the .states"
                settings.append((Setting(name, float(value), None, "", "in force", source, "next update"), None))
        kind = state.name.rpartition(" ")[2]
        settings.append((Setting("optimizer", None, kind, "", "in force", "the class in the .states"), None))
        step = plain.number(state.attributes.get("num_update"))
        if step is not None:
            facts.append(Fact(step, STEPS, "num_update in the .states"))
    return Parts(
        laid_out({n: p for n, p in found.items() if n not in buffers}, axes),
        facts=tuple(facts),
        buffers=buffers,
        told=told({}, settings),
        torch_like=False,
    )


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
