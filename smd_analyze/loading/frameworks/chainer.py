"""Chainer's snapshots of a Trainer: updater/model:main and updater/optimizer:main in one .npz."""

from __future__ import annotations

import re
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST, laid_out
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, get, tensors
from smd_analyze.records.run import Setting

STATISTICS = re.compile(r"(^|\.)(avg_mean|avg_var|N)$")


def matches(document: Document) -> bool:
    """An updater with a model in it."""
    updater = as_dict(get(document.tree, "updater")) if document.format == "npz" else None
    return updater is not None and any(str(k).startswith("model:") for k in updater)


def read_parts(document: Document) -> Parts:
    """The main model (or the largest), its optimizer's states, the iteration."""
    updater = as_dict(get(document.tree, "updater")) or {}
    models = {k.partition(":")[2]: v for k, v in updater.items() if k.startswith("model:")}
    main = "main" if "main" in models else max(models, key=lambda k: sum(p.nbytes for p in tensors(models[k]).values()))
    found = tensors(models[main], document.path)
    states = moments(updater.get(f"optimizer:{main}"))
    step = plain.number(updater.get("iteration"))
    kind = {"exp_avg": "Adam", "momentum_buffer": "SGD"}.get(
        next((k for s in states.values() for k in s if k != "step"), "")
    )
    inferred = Setting("optimizer", None, kind, "", "inferred", f"states in updater/optimizer:{main}")
    return Parts(
        laid_out({n: p for n, p in found.items() if not STATISTICS.search(n)}, axes),
        f"updater/model:{main}",
        facts=(Fact(step, STEPS, "updater/iteration in the file"),) if step is not None else (),
        others=tuple(k for k in models if k != main),
        buffers={n: p for n, p in found.items() if STATISTICS.search(n)},
        told=told(states, ((inferred, None),) if kind else ()),
        torch_like=False,
    )


def axes(name: str, place: Place, siblings: Any) -> str | None:
    """Output first, as in torch; only matrices and kernels called W, and vectors."""
    return OUT_FIRST.get(len(place.shape)) if len(place.shape) == 1 or name.endswith("W") else None


def moments(optimizer: Any) -> dict[str, dict[str, Place]]:
    """Parameter → its states under torch's names (MomentumSGD: v; Adam: m and v; t counts updates)."""
    out: dict[str, dict[str, Place]] = {}
    for path, place in tensors(optimizer).items():
        name, _, kind = path.rpartition(".")
        if name:
            out.setdefault(name, {})[kind] = place
    made: dict[str, dict[str, Place]] = {}
    for name, state in out.items():
        names = {"m": "exp_avg", "v": "exp_avg_sq" if "m" in state else "momentum_buffer", "t": "step"}
        kept = {names[k]: p for k, p in state.items() if k in names}
        if kept.keys() - {"step"}:
            made[name] = kept
    return made


FRAMEWORK = Framework("chainer", matches, read_parts)
