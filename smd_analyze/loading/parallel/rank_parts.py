"""Trees that the ranks of one run saved each for itself, put together: DTensors and ShardedTensors by what they say.

A DTensor's placements tell along which axis each axis of the mesh cuts it, and its mesh where the rank stands on that.
Source: torch/distributed/tensor/_utils.py, placement_types.py; torch/distributed/_shard/sharded_tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place, joined
from smd_analyze.loading.tensors.trees import MOST_NODES, as_dict

DTENSOR = "DTensor"
DEEPEST = 12
FLAT = re.compile(r"(^|\.)_?flat_param(_\d+)?$")


class Cut(NamedTuple):
    """A rank's part of a tensor: the whole's shape, the part, per axis of the mesh (tensor axis or None, strided)."""

    shape: tuple[int, ...]
    local: Place
    cuts: tuple[tuple[int | None, bool], ...]
    at: tuple[int, ...]


def put_together(nodes: Sequence[Any], what: str) -> Any:
    """One tree of the ranks' trees: parts of tensors joined, all else as the first rank has it.

    UnsafeFile if the tree unfolds to too many nodes: what is shared in a pickle is met again and again.
    """
    return Joining(what).join(nodes, "", 0)


class Joining:
    """One walk through the trees, and how many nodes it has met."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.nodes = 0

    def join(self, nodes: Sequence[Any], name: str, depth: int) -> Any:
        """The ranks' nodes of one name as one."""
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise UnsafeFile(f"{self.what}: refused: its tree unfolds to more than {MOST_NODES} nodes")
        first, inside = nodes[0], name and name + "."
        if type(first) is dict and depth < DEEPEST:
            own = [n for n in nodes if type(n) is dict]
            keys = dict.fromkeys(k for n in own for k in n)
            return {k: self.join([n[k] for n in own if k in n], f"{inside}{k}", depth + 1) for k in keys}
        if type(first) in (list, tuple) and depth < DEEPEST and any(type(v) in (dict, Inert) for v in first):
            lists = [n for n in nodes if type(n) is type(first) and len(n) == len(first)]
            made = [self.join([n[i] for n in lists], f"{inside}{i}", depth + 1) for i in range(len(first))]
            return made if type(first) is list else tuple(made)
        if any(is_sharded(n) for n in nodes):
            return from_shards([n for n in nodes if is_sharded(n)], f"{self.what}: {name}")
        return from_parts(nodes, f"{self.what}: {name}") if any(is_part(n) for n in nodes) else first


def is_part(node: Any) -> bool:
    """A rank's part of a DTensor, as `pickled_tensors.wrapped` leaves it."""
    return type(node) is Inert and node.name.endswith(DTENSOR) and len(node.args) == 3


def is_sharded(node: Any) -> bool:
    """A ShardedTensor."""
    return type(node) is Inert and node.name.endswith(" ShardedTensor") and isinstance(node.state, tuple)


def from_shards(nodes: Sequence[Inert], what: str) -> Place:
    """A ShardedTensor: every shard says where it begins."""
    size: Any = None
    pieces: dict[tuple[int, ...], Place] = {}
    for node in nodes:
        shards, metadata = (*node.state, None, None)[:2]
        size = (as_dict(metadata) or {}).get("size", size)
        for shard in shards if isinstance(shards, list) else ():
            found = as_dict(shard) or {}
            begin, place = (as_dict(found.get("metadata")) or {}).get("shard_offsets"), found.get("tensor")
            if not isinstance(begin, list | tuple) or type(place) is not Place:
                raise DamagedFile(f"{what}: a shard does not say which part it is")
            pieces.setdefault(tuple(begin), place)
    if not isinstance(size, tuple) or not pieces:
        raise DamagedFile(f"{what}: its shards do not say what they are parts of")
    return joined(size, next(iter(pieces.values())).dtype, list(pieces.items()), what)


def from_parts(nodes: Sequence[Any], what: str) -> Place:
    """A DTensor: the ranks' parts at the places that their positions on the mesh give."""
    whole = next((n for n in nodes if type(n) is Place), None)
    if whole is not None:  # so uneven that one rank has everything
        return whole
    parts = [cut_of(node, rank, what) for rank, node in enumerate(nodes)]
    mesh = tuple(1 + max(numbers) for numbers in zip(*(p.at for p in parts), strict=False))
    pieces: dict[tuple[int, ...], Place] = {}
    for part in parts:
        begin, size = box_of(part, mesh)
        if size != part.local.shape:
            raise DamagedFile(f"{what}: a rank holds {part.local.shape}, its placements say {size}: is a rank missing?")
        if 0 not in size:
            pieces.setdefault(begin, part.local)
    return joined(parts[0].shape, parts[0].local.dtype, list(pieces.items()), what)


def cut_of(node: Any, rank: int, what: str) -> Cut:
    """What a part says of itself. DamagedFile if it does not say enough."""
    shape, local, spec = node.args if is_part(node) else (None, None, None)
    found = as_dict(spec) or {}
    placements, mesh = found.get("placements"), as_dict(found.get("mesh")) or {}
    if not isinstance(shape, tuple) or type(local) is not Place or not isinstance(placements, tuple):
        raise DamagedFile(f"{what}: is a part of a tensor that does not say which part")
    cuts: list[tuple[int | None, bool]] = []
    for placement in placements:
        kind, axis = (placement.name, placement.attributes.get("dim")) if type(placement) is Inert else ("", None)
        if kind.endswith("Replicate"):
            cuts.append((None, False))
        elif kind.endswith("Shard") and type(axis) is int and -len(shape) <= axis < len(shape):
            cuts.append((axis % len(shape), kind.endswith("StridedShard")))
        else:
            raise DamagedFile(f"{what}: is saved as {kind.rpartition('.')[2] or 'parts'}, which cannot be put together")
    at = mesh.get("_coordinate_on_dim")
    at = tuple(at) if isinstance(at, list | tuple) else (rank,)
    if len(at) != len(cuts) or not all(type(n) is int and 0 <= n < 1 << 20 for n in at):
        raise DamagedFile(f"{what}: its mesh does not say where the rank stands on it")
    return Cut(shape, local, tuple(cuts), at)


def box_of(part: Cut, mesh: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(begin, shape) of a part. The mesh's axes cut one after the other; a strided cut comes after the others."""
    begin, size = [0] * len(part.shape), list(part.shape)
    order = sorted(range(len(part.cuts)), key=lambda i: part.cuts[i][1])
    for i in order:
        axis = part.cuts[i][0]
        if axis is not None:
            step = -(-size[axis] // mesh[i])
            low = min(size[axis], step * part.at[i])
            begin[axis] += low
            size[axis] = min(step, size[axis] - low)
    return tuple(begin), tuple(size)


def refuse_flat(names: Iterable[str], path: str) -> None:
    """DamagedFile if the weights are the flat vectors of FSDP 1."""
    flat = next((n for n in names if FLAT.search(n)), None)
    if flat is not None:
        words = f"{flat} is a flat vector of FSDP 1 (LOCAL_STATE_DICT): which parameter is where stands in no file"
        raise DamagedFile(f"{path}: {words}; save with SHARDED_STATE_DICT or FULL_STATE_DICT")
