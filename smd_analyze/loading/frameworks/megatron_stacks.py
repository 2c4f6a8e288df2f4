"""Megatron-core gives all layers' (and all experts') tensors one name and a first axis of layers: cut into each again.

`decoder.layers.self_attention.linear_qkv.weight` of shape (layers, out, in) becomes `decoder.layers.0.self_…`, ….
Source: megatron/core/transformer/transformer_block.py (sharded_state_dict), moe/experts.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.file_ids import FileId
from smd_analyze.loading.tensors.cutting import cut
from smd_analyze.loading.tensors.places import Place, joined
from smd_analyze.records.finding import Finding

STACKED = re.compile(r"((?:.*?\.)?(?:layers|experts(?:\.experts)?))\.(?!\d|local_experts|experts)(.+)")
MOST_LAYERS = 10_000

Pieces = tuple[tuple[tuple[int, ...], Place], ...]


def each_layer(tree: Mapping[Any, Any], layers: Any, what: str) -> dict[Any, Any]:
    """The tree with a tensor per layer where one holds all.

    Every rank writes its layers one by one: a stack's pieces have one entry each along the first axis. What is written
    otherwise is a stack if it has as many entries as its neighbours, or as there are `layers`.
    """
    found = {k: m for k, v in tree.items() if isinstance(k, str) and type(v) is Place and (m := STACKED.fullmatch(k))}
    found = {k: m for k, m in found.items() if can_be_stack(tree[k])}
    lengths: dict[str, set[int]] = {}
    for key, match in found.items():
        if all(piece.shape[0] == 1 for _, piece in pieces_of(tree[key])):
            lengths.setdefault(match[1], set()).add(tree[key].shape[0])
        elif match[1].endswith("layers") and type(layers) is int and tree[key].shape[0] == layers:
            lengths.setdefault(match[1], set()).add(layers)
    out: dict[Any, Any] = {}
    stacked = False
    for key, value in tree.items():
        if key in found and lengths.get(found[key][1]) == {value.shape[0]}:
            parts = layers_of(value, f"{what}{key}")
            out |= {f"{found[key][1]}.{i}.{found[key][2]}": part for i, part in enumerate(parts)}
            stacked = True
        else:
            out[key] = value
    return each_layer(out, layers, what) if stacked else out  # experts within layers


def stack_findings(before: Mapping[Any, Any], after: Mapping[Any, Any], path: str) -> tuple[Finding, ...]:
    """What was cut, in words."""
    stacks = [k for k in before if k not in after and not str(k).startswith(("optimizer.", "chained_"))]
    if not stacks:
        return ()
    words = (
        f"{len(stacks)} tensors hold all layers or experts along their first axis, e.g. {stacks[0]}: each is cut out"
    )
    return (Finding("stacked-layers", "note", path, words),)


def pieces_of(place: Place) -> Pieces:
    """The tensor's pieces; itself if it is in one."""
    return place.pieces or (((0,) * len(place.shape), place),)


def can_be_stack(place: Place) -> bool:
    """Two axes at least, cut nowhere but along axes."""
    axes = len(place.shape)
    return axes > 1 and 0 < place.shape[0] <= MOST_LAYERS and all(len(begin) == axes for begin, _ in pieces_of(place))


def layers_of(place: Place, what: str) -> list[Place]:
    """The tensor cut along its first axis, without that axis."""
    parts: list[list[tuple[tuple[int, ...], Place]]] = [[] for _ in range(place.shape[0])]
    for begin, piece in pieces_of(place):
        for index, row in enumerate(rows_of(piece)):
            parts[begin[0] + index].append((begin[1:], row))
    return [joined(place.shape[1:], place.dtype, part, what) for part in parts]


def rows_of(piece: Place) -> Iterator[Place]:
    """Each entry along a piece's first axis."""
    for index in range(piece.shape[0]):
        if piece.shape[0] == 1:
            yield replace(piece, shape=piece.shape[1:])
        elif piece.find is not None:
            row = replace(piece, shape=piece.shape[1:], find=partial(find_row, whole=piece, index=index))
            begin = (0,) * len(row.shape)  # a piece: rows have one start, and would be taken for one tied tensor
            yield Place(row.shape, row.dtype, 0, file=row.file, pieces=((begin, row),))
        else:
            yield cut(piece, 0, index)


def find_row(file: FileId, place: Place, *, whole: Place, index: int) -> Place:
    """One entry of a piece that lies inside an archive."""
    found = whole.find(file, whole) if whole.find else whole
    if found.shape != whole.shape:
        raise DamagedFile(f"{file.path}: at byte {whole.start} lies {list(found.shape)}, not {list(whole.shape)}")
    return cut(found, 0, index)
