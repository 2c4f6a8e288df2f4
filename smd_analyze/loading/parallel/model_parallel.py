"""Parts of a model that ranks hold: layers cut over tensor-parallel ranks, put together by the rules of Megatron-LM.

Column-parallel layers are cut along their outputs (axis 0), row-parallel ones along their inputs (axis 1), all else is
on every rank. Source: megatron/core/tensor_parallel/layers.py, GPT-NeoX' megatron/model/transformer.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from smd_analyze.loading.files.findings import some
from smd_analyze.loading.tensors.dtypes import ITEMSIZE
from smd_analyze.loading.tensors.places import Place, joined
from smd_analyze.loading.tensors.trees import as_dict
from smd_analyze.records.finding import Finding

GATED = re.compile(r"(^|\.)(linear_fc1|dense_h_to_4h)\.(weight|bias)$")
COLUMNS = re.compile(
    r"(^|\.)(linear_qkv|query_key_value|query|key_value|linear_q|linear_kv|linear_fc1|dense_h_to_4h|mlp\.linear1"
    r"|mlp\.w1|mlp\.w3|q_proj|k_proj|v_proj|gate_proj|up_proj)\.(weight|bias)$"
    r"|(^|\.)(word_embeddings|output_layer|lm_head|final_linear)\.weight$"
)
ROWS = re.compile(
    r"(^|\.)(linear_proj|self_attention\.dense|attention\.dense|linear_fc2|dense_4h_to_h|mlp\.linear2|mlp\.w2"
    r"|o_proj|down_proj)\.weight$"
)


def merged(
    parts: Sequence[Mapping[str, Place]], ranks: int, what: str, gated: bool = False
) -> tuple[dict[str, Place], list[str]]:
    """(whole tensors, those of which it is not known how they are cut) of the tensors that each rank holds.

    `ranks` is how many tensor-parallel ranks there are: a tensor on more ranks than that is tied over pipeline stages.
    `gated`: linear_fc1 holds gate and up projection, of which each rank has a part of both.
    """
    out: dict[str, Place] = {}
    unsure: list[str] = []
    for name in dict.fromkeys(n for part in parts for n in part):
        places = [part[name] for part in parts if name in part][:ranks]
        first = places[0]
        axis = axis_of(name, first) if len(places) > 1 else None
        if len(places) > 1 and axis is None and len(first.shape) > 1:
            unsure.append(name)
        if axis is None:
            out[name] = first
        else:
            out[name] = together(places, axis, f"{what}: {name}", gated and GATED.search(name) is not None)
    return out, unsure


def axis_of(name: str, place: Place) -> int | None:
    """The axis along which the ranks cut a parameter; None if every rank has all of it."""
    if COLUMNS.search(name) and place.shape:
        return 0
    return 1 if ROWS.search(name) and len(place.shape) > 1 else None


def together(places: Sequence[Place], axis: int, what: str, halves: bool = False) -> Place:
    """The ranks' parts, one after the other along an axis; `halves`: first the first halves of all."""
    if halves and all(p.shape[0] % 2 == 0 and p.pieces is None and p.strides is None for p in places):
        places = [half(p, second) for second in (False, True) for p in places]
    shape = list(places[0].shape)
    shape[axis] = sum(p.shape[axis] for p in places if len(p.shape) == len(shape))
    pieces: list[tuple[tuple[int, ...], Place]] = []
    at = 0
    for place in places:
        begin = tuple(at if i == axis else 0 for i in range(len(shape)))
        pieces.append((begin, place))
        at += place.shape[axis] if len(place.shape) == len(shape) else 0
    return joined(shape, places[0].dtype, pieces, what)


def half(place: Place, second: bool) -> Place:
    """The first or second half of the rows of a tensor that lies in one stretch."""
    shape = (place.shape[0] // 2, *place.shape[1:])
    return replace(place, shape=shape, start=place.start + second * prod(shape) * ITEMSIZE[place.dtype])


def unsure_findings(names: Sequence[str], path: str) -> list[Finding]:
    """What could not be put together, in words."""
    if not names:
        return []
    words = f"not known how {some(names)} is cut into ranks: the first rank's part is taken"
    return [Finding("rank-parts", "warning", path, words, "Join the ranks with the trainer's own tools.")]


def renumbered_layers(names: Iterable[str], offset: int) -> dict[str, str]:
    """Name → name with the number of its layer (`layers.0.…`) moved by `offset`, for stages that count from zero."""
    return {n: LAYER.sub(lambda found: f"{found[1]}{int(found[2]) + offset}.", n, count=1) for n in names}


def count_layers(names: Iterable[str]) -> int:
    """How many layers a stage holds."""
    return 1 + max((int(found[2]) for n in names if (found := LAYER.search(n))), default=-1)


LAYER = re.compile(r"((?:^|\.)layers\.)(\d+)\.")


def settings_only(node: Any) -> Any:
    """An optimizer's param_groups, wherever they lie in it, without its states."""
    found = as_dict(node) or {}
    if isinstance(found.get("param_groups"), list):
        return {"param_groups": found["param_groups"], "state": {}}
    inner = [as_dict(v) or {} for k, v in found.items() if k in ("optimizer", "optimizer_state_dict") or type(k) is int]
    return next(({"param_groups": i["param_groups"], "state": {}} for i in inner if "param_groups" in i), {})
