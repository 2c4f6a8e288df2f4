"""Megatron-LM: plain keys, one torch file per rank; and what its arguments mean, in either of its layouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.loading.dtypes import FLOATING
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import Framework, Parts
from smd_analyze.loading.trees import as_dict, get, tensors


def matches(document: Document) -> bool:
    """Its older layout; the newer one is a torch.distributed checkpoint."""
    return document.format == "Megatron ranks"


def read_parts(document: Document) -> Parts:
    """The keys are the plain ones."""
    parts = plain.read_parts(document)
    cut = len(document.files) > 1
    optimizers = tuple(by_rule(o, {}, parts.weights) for o in parts.optimizers[:1]) if cut else parts.optimizers
    return with_decoupled_decay(replace(parts, optimizers=optimizers), document.tree)


def is_megatron(tree: Any) -> bool:
    """Its arguments are in the tree."""
    return get(tree, "args.tensor_model_parallel_size") is not None or get(tree, "args.num_layers") is not None


def with_decoupled_decay(parts: Parts, tree: Any) -> Parts:
    """Its "adam" is AdamW unless it was told otherwise (megatron/core/optimizer: FusedAdam with adam_w_mode)."""
    if get(tree, "args.decoupled_weight_decay") is False or parts.configured.get("optimizer") != "adam":
        return parts
    return replace(parts, configured={**parts.configured, "optimizer": "adamw"})


def by_rule(optimizer: Any, states: Mapping[str, Any], weights: Any) -> Any:
    """The optimizer with names for numbers, which count one rank's parameters only; unchanged if the rule is not known.

    Megatron decays no biases and no vectors (megatron/core/optimizer/__init__.py, _get_param_groups).
    """
    found = as_dict(optimizer) or {}
    groups = [as_dict(g) or {} for g in found.get("param_groups") or ()]
    names = {n: p.shape for n, p in tensors(weights).items() if p.dtype in FLOATING}
    decayed = [bool(plain.plain(g.get("weight_decay"))) for g in groups]
    if len(groups) == 1:
        members = [list(names)]
    elif len(groups) == 2 and decayed[0] != decayed[1]:
        vectors = {n for n, shape in names.items() if n.endswith(".bias") or len(shape) == 1}
        members = [[n for n in names if (n not in vectors) == decay] for decay in decayed]
    else:
        return optimizer
    named = [{**g, "params": m} for g, m in zip(groups, members, strict=True)]
    return {**found, "state": dict(states), "param_groups": named}


FRAMEWORK = Framework("megatron", matches, read_parts)
