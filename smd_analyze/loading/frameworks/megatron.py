"""Megatron-LM: plain keys, one torch file per rank; and what its arguments mean, in either of its layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import Framework, Parts
from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.trees import as_dict, get, tensors


def matches(document: Document) -> bool:
    """Its older layout; the newer one is a torch.distributed checkpoint."""
    return document.format == "Megatron ranks"


def read_parts(document: Document) -> Parts:
    """The keys are the plain ones."""
    parts = plain.read_parts(document)
    cut = len(document.files) > 1
    optimizers = by_rule(parts.optimizers, {}, parts.weights) if cut else parts.optimizers
    return with_decoupled_decay(replace(parts, optimizers=optimizers), document.tree)


def is_megatron(tree: Any) -> bool:
    """Its arguments are in the tree."""
    return get(tree, "args.tensor_model_parallel_size") is not None or get(tree, "args.num_layers") is not None


def with_decoupled_decay(parts: Parts, tree: Any) -> Parts:
    """Its "adam" is AdamW unless it was told otherwise (megatron/core/optimizer: FusedAdam with adam_w_mode)."""
    if get(tree, "args.decoupled_weight_decay") is False or parts.configured.get("optimizer") != "adam":
        return parts
    return replace(parts, configured={**parts.configured, "optimizer": "adamw"})


def by_rule(optimizers: Sequence[Any], states: Mapping[str, Any], weights: Any) -> tuple[Any, ...]:
    """One optimizer with names for numbers, which count one rank's parameters only; the first if no rule tells.

    Megatron decays no biases and no vectors, and keeps experts' parameters in groups (or an optimizer) of their own
    (megatron/core/optimizer/__init__.py, _get_param_groups).
    """
    if not optimizers:
        return ()
    groups = [as_dict(g) or {} for o in optimizers for g in (as_dict(o) or {}).get("param_groups") or ()]
    names = {n: p.shape for n, p in tensors(weights).items() if p.dtype in FLOATING}
    expert = {n for n in names if ".experts." in n}
    vector = {n for n, shape in names.items() if n.endswith(".bias") or len(shape) == 1}
    kinds = [(bool(plain.plain(g.get("weight_decay"))), g.get("is_expert_parallel") is True) for g in groups]
    if len(set(kinds)) < len(kinds):
        return tuple(optimizers[:1])
    decays, experts = len({d for d, _ in kinds}) > 1, len({e for _, e in kinds}) > 1
    members = [
        [n for n in names if (not decays or (n not in vector) == decay) and (not experts or (n in expert) == own)]
        for decay, own in kinds
    ]
    named = [{**g, "params": m} for g, m in zip(groups, members, strict=True)]
    return ({**(as_dict(optimizers[0]) or {}), "state": dict(states), "param_groups": named},)


FRAMEWORK = Framework("megatron", matches, read_parts)
