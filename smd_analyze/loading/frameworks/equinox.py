"""Equinox: numbered arrays, an optimizer's count and moments behind them, the user's JSON."""

from __future__ import annotations

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.tensors import Place
from smd_analyze.records.run import Setting


def matches(document: Document) -> bool:
    """Equinox' own format."""
    return document.format == "equinox"


def read_parts(document: Document) -> Parts:
    """The model's arrays; step from the counter or the user's JSON."""
    tree = document.tree
    count = plain.number(tree.get("count"))
    config = tree.get("config")
    config = config if isinstance(config, dict) else {}
    states = {n: dict(s) for n, s in tree.get("moments", {}).items() if s}
    facts = [Fact(count, STEPS, "optax' count in the file")] if count is not None else []
    kinds = {kind for state in states.values() for kind in state}
    if type(count) is Place:
        states = {n: {**s, "step": count} for n, s in states.items()}
    inferred = Setting("optimizer", None, "Adam or AdamW", "", "inferred", "the moments behind the weights")
    return Parts(
        tree["model"],
        facts=(*facts, *plain.facts_inside(config, (), ())),
        configured={k: v for k, v in config.items() if isinstance(v, str | int | float)},
        configured_in="the first line",
        told=told(states, ((inferred, None),) if len(kinds) == 2 else ()),
        torch_like=False,
    )


FRAMEWORK = Framework("equinox", matches, read_parts)
