"""Sharded trainers (FSDP2, torchtitan, OLMo-core, Megatron-core): one DCP folder, the optimizer's state keyed by name.

Three ways of keying an optimizer are met: nested dicts; flat keys `state.NAME.exp_avg` and `param_groups.NAME.lr`
(torch's flatten_optimizer_state_dict); Megatron's `optimizer.state.exp_avg.NAME` beside the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import Framework, Parts, Told
from smd_analyze.loading.frameworks.megatron import by_rule, is_megatron, with_decoupled_decay
from smd_analyze.loading.tensors import Place, joined
from smd_analyze.loading.trees import get

MEGATRON = re.compile(r"(?:chained_\d+\.)?optimizer\.(?:state\.(\w+)\.)?(.+)")
MASTER = "fp32_param"
STACKED = re.compile(r"((?:.*\.)?layers)\.(?!\d)(.+)")


def matches(document: Document) -> bool:
    """A folder that torch.distributed.checkpoint wrote."""
    return document.format == "torch DCP"


def read_parts(document: Document) -> Parts:
    """The plain keys, once the optimizer's state is nested in the usual way."""
    whole = unwrapped(document.tree)
    flat = unstacked(whole, f"{document.path}: ")
    tree, states, masters = without_megatron(flat)
    made = {k: regular(v) if isinstance(k, str) and plain.is_optimizer_key(k) else v for k, v in tree.items()}
    parts = plain.read_parts(replace(document, tree=made))
    variants = {**parts.variants, "master": masters} if masters else parts.variants
    if is_megatron(document.tree):
        parts = replace(parts, optimizers=tuple(by_rule(o, states, parts.weights) for o in parts.optimizers[:1]))
        parts = with_decoupled_decay(parts, document.tree)
        if states and not parts.optimizers:
            parts = replace(parts, told=Told(states=states))
    return replace(parts, variants=variants)


def unwrapped(tree: Mapping[Any, Any]) -> dict[Any, Any]:
    """The tree without the one key that an application put around model and optimizer ("app")."""
    out = dict(tree)
    for key, value in tree.items():
        if type(value) is not dict or not isinstance(key, str) or plain.is_optimizer_key(key) or key in plain.CONFIGS:
            continue
        if any(isinstance(k, str) and plain.is_optimizer_key(k) for k in value):
            del out[key]
            out = {**value, **out}
    return out


def unstacked(tree: Mapping[Any, Any], what: str) -> dict[Any, Any]:
    """Megatron-core gives all layers' tensors one name and a first axis of layers: one tensor per layer again.

    Done only where that axis is as long as the saved arguments say and every rank wrote its layers one by one.
    """
    layers = get(tree, "args.num_layers")
    out: dict[Any, Any] = {}
    for key, value in tree.items():
        found = STACKED.fullmatch(key) if isinstance(key, str) and type(value) is Place else None
        parts = layers_of(value, layers, what + str(key)) if found and type(layers) is int else []
        out |= {f"{found[1]}.{i}.{found[2]}": p for i, p in enumerate(parts)} if found and parts else {key: value}
    return out


def layers_of(place: Place, layers: int, what: str) -> list[Place]:
    """The tensor cut along its first axis, without that axis; empty if it is no stack of so many layers."""
    axes = len(place.shape)
    pieces = place.pieces or (((0,) * axes, place),)
    if axes < 2 or place.shape[0] != layers or any(len(b) != axes or p.shape[0] != 1 for b, p in pieces):
        return []
    parts: list[list[tuple[tuple[int, ...], Place]]] = [[] for _ in range(layers)]
    for begin, piece in pieces:
        parts[begin[0]].append((begin[1:], replace(piece, shape=piece.shape[1:])))
    return [joined(place.shape[1:], place.dtype, part, what) for part in parts]


def without_megatron(tree: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[str, dict[str, Place]], dict[str, Place]]:
    """(the tree without Megatron's sharded optimizer state, that state by parameter, the float32 master weights)."""
    rest: dict[Any, Any] = {}
    states: dict[str, dict[str, Place]] = {}
    for key, value in tree.items():
        found = MEGATRON.fullmatch(key) if isinstance(key, str) and type(value) is Place else None
        if found is None:
            rest[key] = value
        elif found[1]:
            states.setdefault(found[2], {})[found[1]] = value
    masters = {name: state.pop(MASTER) for name, state in states.items() if MASTER in state}
    return rest, states, masters


def regular(optimizer: Any) -> Any:
    """{"state": {name or number: {…}}, "param_groups": [{"params": […], …}]} of any of the ways of keying."""
    if type(optimizer) is not dict:
        return optimizer
    if type(optimizer.get("param_groups")) is list:
        saved = optimizer.get("state")
        saved = saved if type(saved) is dict else {}
        numbered = {int(k) if isinstance(k, str) and k.isdigit() else k: v for k, v in saved.items()}
        return {**optimizer, "state": numbered}
    states: dict[str, dict[str, Any]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for key, value in optimizer.items():
        kind, _, name = key.partition(".") if isinstance(key, str) else ("", "", "")
        name, _, slot = name.rpartition(".")
        if name and kind in ("state", "param_groups"):
            (states if kind == "state" else settings).setdefault(name, {})[slot] = value
    if not settings:
        return {k: regular(v) for k, v in optimizer.items()}
    groups: dict[Any, dict[str, Any]] = {}
    for name, values in settings.items():
        group = groups.setdefault(repr(sorted(values.items())), {**values, "params": []})
        group["params"].append(name)
    return {"state": states, "param_groups": list(groups.values())}


FRAMEWORK = Framework("torch distributed", matches, read_parts)
