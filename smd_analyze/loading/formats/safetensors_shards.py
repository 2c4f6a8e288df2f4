"""safetensors files that ranks wrote, each with its parts of tensors (torch's HuggingFaceStorageWriter, torchtitan).

shard-00001-model-00002-of-00003.safetensors; the metadata's DCP_SHARDING_INFO says where in its tensor a part begins.
Source: torch/distributed/checkpoint/hf_storage.py, _hf_utils.py, _consolidate_hf_safetensors.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import FileId, open_source
from smd_analyze.loading.formats.base import Document, FolderFormat
from smd_analyze.loading.formats.safetensors import open_document
from smd_analyze.loading.tensors.places import Place, joined
from smd_analyze.loading.tensors.trees import moved
from smd_analyze.records.finding import Finding

SHARD = re.compile(r"shard-(\d+)-(model-(\d+)-of-(\d+)\.safetensors)")
INFO = "DCP_SHARDING_INFO"


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """Files of torch's names for shards."""
    return tuple(sorted(f for f in files if SHARD.fullmatch(f)))


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The tensors by name, put together of all files' parts; their parts must cover them."""
    identities: list[FileId] = []
    pieces: dict[str, dict[tuple[int, ...], Place]] = {}
    for name in files:
        with open_source(f"{path}/{name}") as source:
            document = open_document(source, None)
        begins = sharding_of(document)
        for tensor, place in moved(document.tree, len(identities)).items():
            if type(place) is not Place:
                continue
            begin = begins.get(tensor)
            if begin is None or len(begin) != len(place.shape):
                raise DamagedFile(f"{path}/{name}: {INFO} does not say where the part of {tensor} begins")
            pieces.setdefault(tensor, {}).setdefault(begin, place)
        identities.append(source.file)
    tree = {tensor: together(parts, f"{path}: {tensor}", files) for tensor, parts in pieces.items()}
    return Document(path, FORMAT.name, tree, tuple(identities), folder=True), []


def sharding_of(document: Document) -> dict[str, tuple[int, ...]]:
    """Tensor → index of the first element of this file's part of it."""
    metadata = document.tree.get("__metadata__")
    try:
        table: Any = json.loads(metadata[INFO]) if type(metadata) is dict else None
    except (KeyError, TypeError, ValueError, RecursionError):
        table = None
    if not isinstance(table, dict):
        raise DamagedFile(f"{document.path}: holds parts of tensors, but its metadata has no {INFO}")
    found = {n: e.get("saved_offsets") for n, e in table.items() if isinstance(e, dict)}
    return {n: tuple(b) for n, b in found.items() if isinstance(b, list) and all(type(i) is int and i >= 0 for i in b)}


def together(parts: Mapping[tuple[int, ...], Place], what: str, files: Sequence[str]) -> Place:
    """One tensor. Its shape stands nowhere: it reaches as far as its parts do."""
    places = [p for p in parts.values() if p.nbytes] or list(parts.values())
    ends = [[b + n for b, n in zip(begin, p.shape, strict=True)] for begin, p in parts.items()]
    shape = tuple(max(axis) for axis in zip(*ends, strict=True))
    kept = [(begin, p) for begin, p in parts.items() if p.nbytes]
    try:
        return joined(shape, places[0].dtype, kept, what)
    except DamagedFile as problem:
        have = sorted({int(m[1]) for f in files if (m := SHARD.fullmatch(f))})
        lost = next((n for n in range(1, max(have)) if n not in have), None)
        words = f"shard-{lost:05d}-… is missing" if lost else f"are all shards there? They go to {max(have)}"
        raise DamagedFile(f"{problem}; {words}") from None


FORMAT = FolderFormat("safetensors shards of ranks", claims, open_folder)
