"""Lightning: one .ckpt with state_dict, optimizer_states, lr_schedulers, global_step, epoch, hyper_parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts
from smd_analyze.loading.tensors.trees import as_dict, get, tensors

BATCHES = ("loops", "fit_loop", "epoch_loop.batch_progress", "total", "ready")
AVERAGED = ("ema_state_dict", "ema_weights", "ema_model", "average_model", "swa_state_dict", "ema")


def matches(document: Document) -> bool:
    """Lightning writes its version into every checkpoint. Its folders have the framework that wrote their parts."""
    return isinstance(document.tree, dict) and "pytorch-lightning_version" in document.tree and not document.folder


def read_parts(document: Document) -> Parts:
    """The keys are the plain ones; `state_dict` is the model, or its average where a WeightAveraging callback ran.

    global_step counts the steps of all optimizers together: where there are several, it is not the step of any.
    """
    tree = document.tree
    parts = plain.read_parts(document)
    weights, variants = tree.get("state_dict"), parts.variants
    live = tree.get("current_model_state")
    if tensors(live):
        weights, variants = live, {**variants, "ema": tree.get("state_dict")}
    elif (average := next(averages(tree), None)) is not None:
        variants = {**variants, "ema": average}
    facts = parts.facts
    states = tree.get("optimizer_states")
    if isinstance(states, list | tuple) and len(states) > 1:
        facts = tuple(f for f in facts if not f.source.startswith("global_step"))
        batches: Any = tree
        for key in BATCHES:
            batches = (as_dict(batches) or {}).get(key)
        if plain.number(batches) is not None:
            counted = Fact(batches, STEPS, "batches in the file's loops")
            own = [f for f in facts if f.unit == STEPS]
            facts = (*own, counted, *(f for f in facts if f.unit != STEPS))
    return replace(parts, weights=weights, where="state_dict", variants=variants, facts=facts, others=(), companions={})


def averages(tree: Any) -> Iterator[Any]:
    """Averages that callbacks keep in their own state, or an optimizer that wraps another (NeMo)."""
    callbacks = as_dict(get(tree, "callbacks")) or {}
    states = tree.get("optimizer_states")
    for state in (*callbacks.values(), *(states if isinstance(states, list | tuple) else ())):
        for key in AVERAGED:
            if tensors(found := (as_dict(state) or {}).get(key)):
                yield found


FRAMEWORK = Framework("lightning", matches, read_parts)
