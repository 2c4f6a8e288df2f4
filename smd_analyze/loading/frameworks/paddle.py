"""Paddle: .pdparams with a .pdopt beside it. Kernels are (out, in, …), matrices of linear layers are (in, out)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import TICKS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST, laid_out
from smd_analyze.loading.tensors import Place
from smd_analyze.loading.trees import as_dict
from smd_analyze.records.run import Setting

TITLES = "StructuredToParameterName@@"  # name in the model → name that the optimizer uses
OPTIMIZER = "__optimizer__"
STATISTICS = re.compile(r"(^|\.)_(mean|variance)$")
STATES = {
    "velocity_0": "momentum_buffer", "moment1_0": "exp_avg", "moment2_0": "exp_avg_sq", "moment_0": "sum",
}  # fmt: skip


def matches(document: Document) -> bool:
    """A pickle with Paddle's table of names, or called .pdparams."""
    if document.format != "pickle" or not isinstance(document.tree, dict):
        return False
    return TITLES in document.tree or document.path.endswith(".pdparams")


def read_parts(document: Document) -> Parts:
    """Weights, running statistics, and from the .pdopt the accumulators and the scheduler's learning rate."""
    tree = document.tree
    titles = as_dict(tree.get(TITLES)) or {}
    found = {k: v for k, v in tree.items() if isinstance(k, str) and type(v) is Place}
    optimizer = as_dict(tree.get(OPTIMIZER)) or {}
    schedule = as_dict(optimizer.get("LR_Scheduler")) or {}
    rate, ticks = schedule.get("last_lr"), plain.number(schedule.get("last_epoch"))
    settings: list[tuple[Setting, Place | None]] = []
    if isinstance(rate, int | float):
        source = "LR_Scheduler.last_lr in the .pdopt"
        settings.append((Setting("learning_rate", float(rate), None, "", "in force", source, "next update"), None))
    states = accumulators(optimizer, titles)
    kept = {kind for state in states.values() for kind in state}
    kind = "SGD" if "momentum_buffer" in kept else "Adam or AdamW" if "exp_avg_sq" in kept else None
    if kind:
        settings.append((Setting("optimizer", None, kind, "", "inferred", "accumulators in the .pdopt"), None))
    return Parts(
        laid_out({n: p for n, p in found.items() if not STATISTICS.search(n)}, axes_of(titles)),
        facts=(Fact(ticks, TICKS, "LR_Scheduler.last_epoch in the .pdopt"),) if ticks is not None else (),
        buffers={n: p for n, p in found.items() if STATISTICS.search(n)},
        told=told(states, settings),
        torch_like=False,
    )


def axes_of(titles: Mapping[str, Any]) -> Any:
    """The layout rule: the optimizer's names tell linear layers (linear_0.w_0) from embeddings."""

    def axes(name: str, place: Place, siblings: Mapping[str, Any]) -> str | None:
        kind = str(titles.get(name, ""))
        if len(place.shape) == 2:
            return None if kind.startswith("embedding") or "emb" in name else "IO"
        if "transpose" in kind and len(place.shape) > 2:
            return "IO" + "DHW"[5 - len(place.shape) :]
        return OUT_FIRST.get(len(place.shape))

    return axes


def accumulators(optimizer: Mapping[str, Any], titles: Mapping[str, Any]) -> dict[str, dict[str, Place]]:
    """Parameter → its accumulators under torch's names, matched by the optimizer's own name for it."""
    out: dict[str, dict[str, Place]] = {}
    for name, own in titles.items():
        for ending, title in STATES.items():
            place = optimizer.get(f"{own}_{ending}")
            if type(place) is Place:
                out.setdefault(name, {})[title] = place
    return out


FRAMEWORK = Framework("paddle", matches, read_parts)
