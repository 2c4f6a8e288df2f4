"""Megatron-core's torch_dist checkpoints: optimizer state that stands beside the weights, in several forms.

Source: megatron/core/dist_checkpointing/strategies/torch.py, optimizer/distrib_optimizer.py, transformer/mlp.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.tensors.places import Place, joined
from smd_analyze.records.finding import Finding

STATE = re.compile(r"(?:chained_\d+\.)?optimizer\.(?:state\.(\w+)\.)?(.+)")
BUCKET = re.compile(r"(?:chained_\d+\.)?optimizer\.distributed\..*bucket_idx_\d+\.\w+")
MASTER = "fp32_param"


def without_states(
    tree: Mapping[Any, Any], what: str
) -> tuple[dict[Any, Any], dict[str, dict[str, Place]], dict[str, Place], tuple[Finding, ...]]:
    """(the tree without the optimizer's sharded state, that state by parameter, float32 masters, what is not used)."""
    rest: dict[Any, Any] = {}
    states: dict[str, dict[str, Place]] = {}
    buckets = 0
    for key, value in tree.items():
        found = STATE.fullmatch(key) if isinstance(key, str) and type(value) is Place else None
        if found is None:
            rest[key] = value
        elif found[1]:
            states.setdefault(found[2], {})[found[1]] = value
        else:
            buckets += BUCKET.fullmatch(key) is not None
    for name, state in states.items():
        weight = rest.get(name)
        if type(weight) is Place:
            state |= {k: unflattened(v, weight.shape, f"{what}{k} of {name}") for k, v in state.items()}
    masters = {name: state.pop(MASTER) for name, state in states.items() if MASTER in state}
    findings: tuple[Finding, ...] = ()
    if buckets:
        words = (
            f"the distributed optimizer's state lies in {buckets} flat buckets that do not say which parameter is "
            "where: it is not used"
        )
        findings = (
            Finding("optimizer-state-unmatched", "note", what.rstrip(": "), words, "Save it fully reshardable."),
        )
    return rest, states, masters, findings


def unflattened(place: Place, shape: tuple[int, ...], what: str) -> Place:
    """Older versions flatten each rank's part of a state: axes that count the parts, then one of a part's elements."""
    grid, axes = place.shape[:-1], len(shape)
    if place.shape == shape or prod(place.shape) != prod(shape) or len(grid) not in (0, axes):
        return place
    pieces = place.pieces or (((0,) * len(place.shape), place),)
    if not grid:
        return joined(shape, place.dtype, pieces, what)
    if any(s % g for s, g in zip(shape, grid, strict=True)) or any(prod(p.shape[:-1]) != 1 for _, p in pieces):
        return place
    cell = tuple(s // g for s, g in zip(shape, grid, strict=True))
    cells: dict[tuple[int, ...], list[tuple[tuple[int, ...], Place]]] = {}
    for begin, piece in pieces:
        cells.setdefault(begin[:-1], []).append(((begin[-1],), replace(piece, shape=piece.shape[-1:])))
    made = [
        (tuple(i * n for i, n in zip(at, cell, strict=True)), joined(cell, place.dtype, part, what))
        for at, part in cells.items()
    ]
    return joined(shape, place.dtype, made, what)


def halves_joined(tree: Mapping[Any, Any], what: str) -> dict[Any, Any]:
    """Gate and up projection of linear_fc1, if they were saved apart (`weight_w`, `weight_v`), as the one they are."""
    out = dict(tree)
    for key, gate in tree.items():
        if not isinstance(key, str) or not key.endswith("linear_fc1.weight_w") or type(gate) is not Place:
            continue
        up = tree.get(key[:-1] + "v")
        if type(up) is Place and up.shape == gate.shape:
            rows = gate.shape[0]
            pieces = [((n * rows, *[0] * (len(gate.shape) - 1)), p) for n, p in enumerate((gate, up))]
            shape = (2 * rows, *gate.shape[1:])
            out = {k: v for k, v in out.items() if k != key[:-1] + "v"}
            out[key[:-2]] = joined(shape, gate.dtype, pieces, what + key)
            del out[key]
    return out


def listed(optimizer: Any) -> Any:
    """Chained optimizers, which are numbered, as a list."""
    if type(optimizer) is dict and optimizer and all(type(k) is int for k in optimizer):
        return list(optimizer.values())
    return optimizer


def with_lists(tree: Mapping[Any, Any]) -> dict[Any, Any]:
    """The tree, its chained optimizers listed."""
    return {k: listed(v) if isinstance(k, str) and plain.is_optimizer_key(k) else v for k, v in tree.items()}
