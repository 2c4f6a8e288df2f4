"""MLX: flat dotted names as in torch, but kernels are (out, height, width, in); the optimizer has a file of its own."""

from __future__ import annotations

from dataclasses import replace

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST_IN_LAST, laid_out
from smd_analyze.loading.tensors import Place
from smd_analyze.loading.trees import get
from smd_analyze.records.run import Setting

MOMENTS = {"m": "exp_avg", "v": "momentum_buffer"}
TWIN = "__optimizer__"


def matches(document: Document) -> bool:
    """The format says so: MLX writes that word, or no metadata and unpadded headers, which nobody else does."""
    return isinstance(document.tree, dict) and get(document.tree, "__metadata__.format") == "mlx"


def read_parts(document: Document) -> Parts:
    """Weights of the plain layout with MLX' axes; moments, learning rate and step of the optimizer's file."""
    parts = plain.read_parts(document)
    optimizer = document.tree.get(TWIN) or {}
    states: dict[str, dict[str, Place]] = {}
    adam = any(str(k).endswith(".m") for k in optimizer)
    for key, value in optimizer.items():
        name, _, kind = str(key).rpartition(".")
        if type(value) is Place and name and kind in MOMENTS:
            state = states.setdefault(name, {})
            state["exp_avg_sq" if adam and kind == "v" else MOMENTS[kind]] = value
    facts = parts.facts
    step = plain.number(optimizer.get("step"))
    if step is not None:
        facts = (Fact(step, STEPS, "step in the optimizer's file"), *facts)
        if type(step) is Place:
            states = {n: {**s, "step": step} for n, s in states.items()}
    rate = optimizer.get("learning_rate")
    settings: list[tuple[Setting, Place | None]] = []
    if type(rate) is Place and rate.shape == ():
        source = "learning_rate in the optimizer's file"
        settings.append((Setting("learning_rate", None, None, "", "in force", source, "last update"), rate))
    if states:
        kind = "Adam or AdamW" if adam else "SGD"
        settings.append((Setting("optimizer", None, kind, "", "inferred", "names in the optimizer's file"), None))
    return replace(
        parts,
        weights=laid_out(parts.weights, lambda name, place, _: axes(name, place)),
        facts=facts,
        told=told(states, settings),
        torch_like=False,
    )


def axes(name: str, place: Place) -> str | None:
    """Output unit first, input channel last; embeddings have no output unit."""
    if len(place.shape) == 1 or (name.endswith(("weight", "_weight")) and not plain_embedding(name)):
        return OUT_FIRST_IN_LAST.get(len(place.shape))
    return None


def plain_embedding(name: str) -> bool:
    """An embedding's table by its name."""
    return "emb" in name.rpartition(".")[0].rpartition(".")[2]


FRAMEWORK = Framework("mlx", matches, read_parts)
