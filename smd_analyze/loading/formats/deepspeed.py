"""DeepSpeed ZeRO stages 1 to 3: a folder whose float32 weights and optimizer state are cut into flat parts, one a rank.

Stages 1 and 2 keep the model whole (in its own precision) and cut each parameter group's flat vector into equal parts.
Stage 3 cuts every parameter evenly over the ranks, padded at its end. Source: deepspeed/utils/zero_to_fp32.py,
runtime/zero/stage_1_and_2.py (param_slice_mappings).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.dtypes import ITEMSIZE
from smd_analyze.loading.formats.base import Document, FolderFormat
from smd_analyze.loading.sources import FileId, open_source
from smd_analyze.loading.tensors import Place, joined
from smd_analyze.loading.torch_archive import read_archive
from smd_analyze.loading.trees import as_dict, get, moved
from smd_analyze.records.finding import Finding

MODEL = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")
OPTIMIZER = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt")


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """Model states and optimizer states of one model-parallel rank; models that are cut as well are not read."""
    models = sorted((f for f in files if MODEL.fullmatch(f)), key=rank_of)
    optimizers = sorted((f for f in files if OPTIMIZER.fullmatch(f)), key=rank_of)
    if not models or not optimizers or len({f.partition("mp_rank_")[2].partition("_")[0] for f in models}) > 1:
        return ()
    return (models[0], *optimizers)


def rank_of(name: str) -> int:
    """The data-parallel rank in a file's name."""
    found = re.search(r"zero_pp_rank_(\d+)_", name)
    return int(found[1]) if found else 0


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The model's tree, with `master` (float32 weights) and `optimizer` (by names) joined from the ranks' parts."""
    trees: list[dict[Any, Any]] = []
    identities: list[FileId] = []
    for name in files:
        with open_source(f"{path}/{name}") as source:
            tree, _ = read_archive(source)
        if type(tree) is not dict:
            raise DamagedFile(f"{path}/{name}: holds no dict")
        trees.append(moved(tree, len(identities)))
        identities.append(source.file)
    model, ranks = trees[0], [as_dict(get(t, "optimizer_state_dict")) or {} for t in trees[1:]]
    check_ranks(path, files[1:], ranks)
    shapes = shapes_of(model.get("param_shapes"), path)
    whole = "single_partition_of_fp32_groups" in ranks[0]
    cut = slices_of_groups if whole else slices_of_parameters
    slices = dict(cut(shapes, ranks, path))
    masters = {n: assemble(n, shapes, s, parts_of(ranks, whole, None), path) for n, s in slices.items()}
    optimizer = optimizer_of(shapes, slices, ranks, whole, path)
    tree = {**model, "master": masters, "optimizer": optimizer}
    findings: list[Finding] = []
    frozen = model.get("frozen_param_shapes")
    if not whole and type(frozen) is dict and frozen:
        words = f"{len(frozen)} frozen parameters lie in the ranks' model states: they do not move and are left out"
        findings.append(Finding("frozen-left-out", "note", path, words))
    return Document(path, FORMAT.name, tree, tuple(identities), folder=True), findings


def check_ranks(path: str, names: Sequence[str], ranks: Sequence[Mapping[str, Any]]) -> None:
    """All ranks' files are there."""
    count = ranks[0].get("partition_count")
    count = max(count, default=0) if isinstance(count, list) and all(type(n) is int for n in count) else count
    wanted = count if type(count) is int and 0 < count < 1 << 20 else len(names)
    missing = sorted(set(range(wanted)) - {rank_of(n) for n in names})
    if missing or len(names) != wanted:
        words = f"the optimizer states of rank {missing[0]} are missing" if missing else "there are too many ranks"
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


def slices_of_groups(
    shapes: Sequence[Mapping[str, tuple[int, ...]]], ranks: Sequence[Mapping[str, Any]], path: str
) -> Iterator[tuple[str, list[Slice]]]:
    """Stages 1 and 2: where the ranks say that each parameter's fragments lie, else one vector, cut into ranks."""
    for g, group in enumerate(shapes):
        lengths = [length(part_at(r.get("single_partition_of_fp32_groups"), g)) for r in ranks]
        said = [as_dict(part_at(r.get("param_slice_mappings"), g)) for r in ranks]
        at = 0
        for name, shape in group.items():
            numel, out = prod(shape), []
            if all(s is not None for s in said):
                for r, fragments in enumerate(said):
                    fragment = as_dict((fragments or {}).get(name)) or {}
                    start, count = fragment.get("start"), fragment.get("numel")
                    if type(start) is int and type(count) is int:
                        out.append((r, g, start, count))
            else:
                first = 0
                for r, size in enumerate(lengths):
                    low, high = max(at, first), min(at + numel, first + size)
                    if low < high:
                        out.append((r, g, low - first, high - low))
                    first += size
            at += numel
            yield name, out


def slices_of_parameters(
    shapes: Sequence[Mapping[str, tuple[int, ...]]], ranks: Sequence[Mapping[str, Any]], path: str
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
    made = [{**g, "params": list(shapes[i]) if named else g.get("params")} for i, g in enumerate(groups)]
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


FORMAT = FolderFormat("DeepSpeed ZeRO", claims, open_folder)
