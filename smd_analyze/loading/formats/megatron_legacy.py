"""Megatron-LM's older layout: iter_0005000/mp_rank_00/model_optim_rng.pt, a torch file per tensor-parallel rank.

Column-parallel layers are cut along their outputs (axis 0), row-parallel ones along their inputs (axis 1), all else is
on every rank. Source: megatron/core/tensor_parallel/layers.py, tools/checkpoint/loader_legacy.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.formats.base import Document, FolderFormat
from smd_analyze.loading.sources import FileId, open_source
from smd_analyze.loading.tensors import Place, joined
from smd_analyze.loading.torch_archive import read_archive
from smd_analyze.loading.trees import as_dict, get, moved, tensors
from smd_analyze.records.finding import Finding

RANK = re.compile(r"mp_rank_(\d+)")
NAMES = ("model_optim_rng.pt", "model_rng.pt")
COLUMNS = re.compile(
    r"(^|\.)(linear_qkv|query_key_value|query|key_value|linear_q|linear_kv|linear_fc1|dense_h_to_4h)\.(weight|bias)$"
    r"|(^|\.)(word_embeddings|output_layer|lm_head)\.weight$"
)
ROWS = re.compile(r"(^|\.)(linear_proj|self_attention\.dense|attention\.dense|linear_fc2|dense_4h_to_h)\.weight$")


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """Ranks 0, 1, …, each with a model file of the same name. Pipeline stages (mp_rank_00_000) are not read."""
    ranks = sorted((b for b in below if RANK.fullmatch(b)), key=number_of)
    if not ranks or any(re.fullmatch(r"mp_rank_\d+_\d+", b) for b in below):
        return ()
    for name in NAMES:
        found = tuple(f"{rank}/{name}" for rank in ranks if Path(path, rank, name).is_file())
        if found:
            return found
    return ()


def number_of(name: str) -> int:
    """The rank's number."""
    return int(name.partition("mp_rank_")[2].partition("/")[0])


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The first rank's tree with the whole model in it. Optimizer states stay cut, so only their settings are kept."""
    trees: list[Any] = []
    identities: list[FileId] = []
    for name in files:
        with open_source(f"{path}/{name}") as source:
            trees.append(moved(read_archive(source)[0], len(identities)))
            identities.append(source.file)
    if type(trees[0]) is not dict:
        raise DamagedFile(f"{path}/{files[0]}: holds no dict")
    said = get(trees[0], "args.tensor_model_parallel_size")
    numbers = [number_of(n) for n in files]
    if numbers != list(range(len(files))) or (type(said) is int and said != len(files)):
        raise DamagedFile(
            f"{path}: holds ranks {numbers} of {said or 'unknown'}; copy the missing ones into the folder"
        )
    parts = [tensors(get(t, "model"), f"{path}/{n}") for t, n in zip(trees, files, strict=True)]
    model: dict[str, Place] = {}
    unsure: list[str] = []
    for name, first in parts[0].items():
        places = [p[name] for p in parts if name in p]
        if len(places) != len(parts):
            raise DamagedFile(f"{path}: {name} is not on all ranks")
        axis = axis_of(name, first)
        if axis is None and len(first.shape) > 1 and len(parts) > 1:
            unsure.append(name)
        model[name] = first if axis is None or len(parts) == 1 else together(places, axis, f"{path}: {name}")
    tree = {**trees[0], "model": model}
    if len(parts) > 1 and "optimizer" in tree:
        tree["optimizer"] = settings_only(tree["optimizer"])
    findings: list[Finding] = []
    if unsure:
        words = f"not known how {', '.join(unsure[:3])} is cut into ranks: the first rank's part is taken"
        findings.append(Finding("rank-parts", "warning", path, words, "Join the ranks with Megatron's own tools."))
    return Document(path, FORMAT.name, tree, tuple(identities), folder=True), findings


def axis_of(name: str, place: Place) -> int | None:
    """The axis along which the ranks cut a parameter; None if every rank has all of it."""
    if COLUMNS.search(name) and place.shape:
        return 0
    return 1 if ROWS.search(name) and len(place.shape) > 1 else None


def together(places: Sequence[Place], axis: int, what: str) -> Place:
    """The ranks' parts, one after the other along an axis."""
    shape = list(places[0].shape)
    shape[axis] = sum(p.shape[axis] for p in places if len(p.shape) == len(shape))
    pieces: list[tuple[tuple[int, ...], Place]] = []
    at = 0
    for place in places:
        begin = tuple(at if i == axis else 0 for i in range(len(shape)))
        pieces.append((begin, place))
        at += place.shape[axis] if len(place.shape) == len(shape) else 0
    return joined(shape, places[0].dtype, pieces, what)


def settings_only(node: Any) -> Any:
    """An optimizer's param_groups, wherever they lie in it, without its states."""
    found = as_dict(node) or {}
    if isinstance(found.get("param_groups"), list):
        return {"param_groups": found["param_groups"], "state": {}}
    inner: Mapping[Any, Any] = as_dict(found.get("optimizer")) or {}
    return {"param_groups": inner["param_groups"], "state": {}} if isinstance(inner.get("param_groups"), list) else {}


FORMAT = FolderFormat("Megatron ranks", claims, open_folder)
