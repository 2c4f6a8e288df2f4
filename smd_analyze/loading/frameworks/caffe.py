"""Caffe: weights as the format sorted them, the iteration in the .solverstate beside them."""

from __future__ import annotations

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts

OPTIMIZER = "__optimizer__"


def matches(document: Document) -> bool:
    """Caffe's own format."""
    return document.format == "caffe"


def read_parts(document: Document) -> Parts:
    """The solver's history is not used: it holds updates, scaled by their learning rates."""
    state = document.tree.get(OPTIMIZER)
    step = plain.number(state.get("iter")) if isinstance(state, dict) else None
    return Parts(
        document.tree.get("weights"),
        facts=(Fact(step, STEPS, "iter in the .solverstate"),) if step is not None else (),
        buffers=document.tree.get("buffers"),
        torch_like=False,
    )


FRAMEWORK = Framework("caffe", matches, read_parts)
