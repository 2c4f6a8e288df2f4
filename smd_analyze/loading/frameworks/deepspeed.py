"""DeepSpeed: `module` is the model in its own precision, the float32 masters are joined from the ranks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import Framework, Parts
from smd_analyze.loading.frameworks.sharded import with_trainer
from smd_analyze.loading.tensors.places import Place


def matches(document: Document) -> bool:
    """A folder of model states and ranks' optimizer states."""
    return document.format.startswith("DeepSpeed")


def read_parts(document: Document) -> Parts:
    """Stage 3 keeps no whole copy but the float32 one: then those are the weights, beside the model's buffers."""
    tree = {k: v for k, v in document.tree.items() if k != "master"}
    masters: dict[str, Any] = document.tree.get("master") or {}
    module = tree.get("module")
    module = module if type(module) is dict else {}
    weights = {n: masters[n] if n in masters and is_placeholder(v, masters[n]) else v for n, v in module.items()}
    weights = {n: v for n, v in weights.items() if not (type(v) is Place and v.shape == (0,))}
    weights |= {n: p for n, p in masters.items() if n not in weights}
    parts = plain.read_parts(replace(document, tree={**tree, "module": weights}))
    variants = {**parts.variants, "master": masters} if masters else parts.variants
    parts = replace(parts, weights=weights, where="module", variants=variants, others=(), companions={})
    return with_trainer(parts, document.tree)


def is_placeholder(value: Any, master: Place) -> bool:
    """What stage 3 leaves of a parameter that is cut into ranks: an empty tensor."""
    return type(value) is Place and value.nbytes == 0 < master.nbytes


FRAMEWORK = Framework("deepspeed", matches, read_parts)
