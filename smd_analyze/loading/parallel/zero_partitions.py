"""DeepSpeed's ZeRO: float32 weights and optimizer state in flat parts, one a data-parallel rank, joined by name.

Stages 1 and 2 keep the model whole (in its own precision) and cut each parameter group's flat vector into equal parts.
Stage 3 cuts every parameter evenly over the ranks, padded at its end. Source: deepspeed/utils/zero_to_fp32.py,
runtime/zero/stage_1_and_2.py (param_slice_mappings), moe/utils.py (experts' groups).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.tensors.dtypes import ITEMSIZE
from smd_analyze.loading.tensors.places import Place, joined
from smd_analyze.loading.tensors.trees import as_dict, get

EXPERT = re.compile(r"(deepspeed_experts\.)(\d+)\.")


def join_partitions(
    model: Mapping[str, Any], ranks: Sequence[Mapping[str, Any]], names: Sequence[str], path: str
) -> tuple[dict[str, Place], dict[str, Any]]:
    """(float32 weights by name, optimizer in torch's form with names for numbers) of one model-parallel rank.

    `ranks` are the optimizer states of the data-parallel ranks, `names` their files, `model` tells shapes and order.
    """
    check_ranks(path, names, ranks)
    shapes = shapes_of(model.get("param_shapes"), path)
    whole = "single_partition_of_fp32_groups" in ranks[0]
    shapes = with_all_experts(shapes, ranks) if whole else shapes
    cut = slices_of_groups if whole else slices_of_parameters
    slices = dict(cut(shapes, ranks))
    masters = {n: assemble(n, shapes, s, parts_of(ranks, whole, None), path) for n, s in slices.items()}
    return masters, optimizer_of(shapes, slices, ranks, whole, path)


def rank_of(name: str) -> int:
    """The data-parallel rank in a file's name."""
    found = re.search(r"zero_pp_rank_(\d+)_", name)
    return int(found[1]) if found else 0


def check_ranks(path: str, names: Sequence[str], ranks: Sequence[Mapping[str, Any]]) -> None:
    """All ranks' files are there."""
    count = ranks[0].get("partition_count")
    count = max(count, default=0) if isinstance(count, list) and all(type(n) is int for n in count) else count
    wanted = count if type(count) is int and 0 < count < 1 << 20 else len(names)
    missing = sorted(set(range(wanted)) - {rank_of(n) for n in names})
    if missing or len(names) != wanted:
        lost = re.sub(r"zero_pp_rank_\d+_", f"zero_pp_rank_{missing[0]}_", names[0]) if missing else ""
        words = f"the optimizer states of rank {missing[0]} are missing: {lost}" if missing else "there are too many"
        raise DamagedFile(f"{path}: {len(names)} files for {wanted} ranks: {words}; copy the whole folder")


def shapes_of(node: Any, path: str) -> list[dict[str, tuple[int, ...]]]:
    """Per parameter group, names and shapes in the order of the flat vector."""
    groups = node if isinstance(node, list) else [node]
    if not all(type(g) is dict for g in groups):
        raise DamagedFile(f"{path}: holds no param_shapes: DeepSpeed before 0.4 is not read; run its zero_to_fp32.py")
    for group in groups:
        for name, shape in group.items():
            if not (
                isinstance(name, str) and isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
            ):
                raise DamagedFile(f"{path}: param_shapes is not sound at {name!r}")
    return groups


Slice = tuple[int, int, int, int]  # rank, group, first element in that rank's part, number of elements


def expert_ranks(ranks: Sequence[Mapping[str, Any]], group: int, names: Mapping[str, Any]) -> int:
    """Over how many ranks a group's experts are spread: 1 for a group that all ranks share."""
    if not names or not all(EXPERT.search(n) for n in names):
        return 1
    counts = ranks[0].get("partition_count")
    count = counts[group] if isinstance(counts, list) and group < len(counts) else len(ranks)
    return len(ranks) // count if type(count) is int and 0 < count <= len(ranks) and len(ranks) % count == 0 else 1


def with_all_experts(
    shapes: Sequence[Mapping[str, tuple[int, ...]]], ranks: Sequence[Mapping[str, Any]]
) -> list[dict[str, tuple[int, ...]]]:
    """Each rank numbers its experts from zero: the shapes of all ranks' experts under the model's own numbers."""
    out: list[dict[str, tuple[int, ...]]] = []
    for g, group in enumerate(shapes):
        spread = expert_ranks(ranks, g, group)
        out.append({global_name(n, group, e): shape for e in range(spread) for n, shape in group.items()})
    return out


def global_name(name: str, group: Mapping[str, Any], rank: int) -> str:
    """An expert's name with the number that it has in the whole model."""
    local = len({int(found[2]) for n in group if (found := EXPERT.search(n))})
    return EXPERT.sub(lambda found: f"{found[1]}{int(found[2]) + rank * local}.", name)


def slices_of_groups(
    shapes: Sequence[Mapping[str, tuple[int, ...]]], ranks: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, list[Slice]]]:
    """Stages 1 and 2: where the ranks say that each parameter's fragments lie, else one vector, cut into ranks."""
    for g, group in enumerate(shapes):
        lengths = [length(part_at(r.get("single_partition_of_fp32_groups"), g)) for r in ranks]
        said = [as_dict(part_at(r.get("param_slice_mappings"), g)) for r in ranks]
        spread, names = expert_ranks(ranks, g, group), list(group)
        for e in range(spread):
            at = 0
            own = names[e * len(names) // spread : (e + 1) * len(names) // spread]
            local = names[: len(own)]
            for name, short in zip(own, local, strict=True):
                numel, out = prod(group[name]), []
                if all(s is not None for s in said):
                    for r in range(e, len(ranks), spread):
                        fragment = as_dict((said[r] or {}).get(short)) or {}
                        start, count = fragment.get("start"), fragment.get("numel")
                        if type(start) is int and type(count) is int:
                            out.append((r, g, start, count))
                else:
                    first = 0
                    for r in range(e, len(ranks), spread):
                        low, high = max(at, first), min(at + numel, first + lengths[r])
                        if low < high:
                            out.append((r, g, low - first, high - low))
                        first += lengths[r]
                at += numel
                yield name, out


def slices_of_parameters(
    shapes: Sequence[Mapping[str, tuple[int, ...]]], ranks: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, list[Slice]]]:
    """Stage 3: a like share of every parameter on every rank; a rank's flat groups follow each other."""
    lengths = [[length(p) for p in r.get("fp32_flat_groups") or ()] for r in ranks]
    at = 0
    for group in shapes:
        for name, shape in group.items():
            numel = prod(shape)
            share = -(-numel // len(ranks))
            out: list[Slice] = []
            for r, sizes in enumerate(lengths):
                need, first = min(share, max(0, numel - r * share)), 0
                for g, size in enumerate(sizes):
                    low, high = max(at, first), min(at + need, first + size)
                    if low < high:
                        out.append((r, g, low - first, high - low))
                    first += size
            at += share
            yield name, out


def part_at(parts: Any, index: int) -> Any:
    """An entry of a list, or None."""
    return parts[index] if isinstance(parts, list) and index < len(parts) else None


def length(place: Any) -> int:
    """Elements of a rank's part; 0 if there is none."""
    return prod(place.shape) if type(place) is Place else 0


def parts_of(ranks: Sequence[Mapping[str, Any]], whole: bool, slot: str | None) -> list[list[Any]]:
    """Per rank and group the flat float32 weights, or (`slot`) the optimizer's state of that name."""
    if slot is None:
        key = "single_partition_of_fp32_groups" if whole else "fp32_flat_groups"
        return [list(r[key]) if isinstance(r.get(key), list) else [] for r in ranks]
    key = "base_optimizer_state.state" if whole else "optimizer_state_dict.state"
    states = [get(r, key) for r in ranks]
    return [
        [(as_dict(s[g]) or {}).get(slot) if g in s else None for g in range(max_number(s) + 1)]
        if type(s) is dict
        else []
        for s in states
    ]


def max_number(states: Mapping[Any, Any]) -> int:
    """The largest group number, at most as many as there are states."""
    return min(max((k for k in states if type(k) is int), default=-1), len(states) - 1)


def assemble(
    name: str,
    shapes: Sequence[Mapping[str, tuple[int, ...]]],
    slices: Sequence[Slice],
    parts: list[list[Any]],
    path: str,
) -> Place:
    """The Place of one parameter (or of its state), from its fragments in the ranks' files."""
    shape = next(g[name] for g in shapes if name in g)
    pieces: list[tuple[tuple[int, ...], Place]] = []
    done = 0
    for rank, group, start, count in slices:
        part = part_at(parts[rank], group)
        if type(part) is not Place or part.strides is not None or not 0 <= start <= start + count <= length(part):
            raise DamagedFile(f"{path}: {name}: rank {rank} does not hold its {count} elements")
        first = part.start + start * ITEMSIZE[part.dtype]
        pieces.append(((done,), replace(part, shape=(count,), start=first)))
        done += count
    return joined(shape, pieces[0][1].dtype if pieces else "float32", pieces, f"{path}: {name}")


def optimizer_of(
    shapes: Sequence[Mapping[str, tuple[int, ...]]],
    slices: Mapping[str, Sequence[Slice]],
    ranks: Sequence[Mapping[str, Any]],
    whole: bool,
    path: str,
) -> dict[str, Any]:
    """torch's own form, with names instead of numbers. Stages cut the state as they cut the weights."""
    inner = get(ranks[0], "base_optimizer_state" if whole else "optimizer_state_dict")
    inner = as_dict(inner) or {}
    groups = inner.get("param_groups")
    groups = [as_dict(g) or {} for g in groups] if isinstance(groups, list) else []
    named = len(groups) == len(shapes)
    made = uniquely_named(
        [{**g, "params": list(shapes[i]) if named else g.get("params")} for i, g in enumerate(groups)]
    )
    states: dict[str, dict[str, Any]] = {name: {} for name in slices}
    saved = inner.get("state")
    first = next((as_dict(s) or {} for s in saved.values()), {}) if type(saved) is dict else {}
    for slot, value in first.items():
        if type(value) is Place and len(value.shape) == 1 and prod(value.shape) > 1:
            parts = parts_of(ranks, whole, slot)
            for name, where in slices.items():
                states[name][slot] = assemble(name, shapes, where, parts, path)
        elif isinstance(value, Place | int | float) and isinstance(slot, str):
            for state in states.values():
                state[slot] = value
    return {"state": {n: s for n, s in states.items() if s}, "param_groups": made}


def uniquely_named(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of one name (DeepSpeed gives all of an expert's groups one) with their numbers in it."""
    names = [g.get("name") for g in groups]
    return [
        {**g, "name": f"{name} {i}"} if isinstance(name, str) and names.count(name) > 1 else g
        for i, (g, name) in enumerate(zip(groups, names, strict=True))
    ]
