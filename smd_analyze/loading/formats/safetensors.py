"""safetensors: header length, JSON header, raw little-endian tensors (huggingface/safetensors, README, Format)."""

from __future__ import annotations

import json
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format
from smd_analyze.loading.tensors.dtypes import SAFETENSORS
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import placed

LONGEST_HEADER = 100_000_000  # the library's own bound


def matches(source: Source) -> bool:
    """A header length within the bound, then the opening brace of a JSON object."""
    head = source.head
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def open_document(source: Source, previous: Document | None) -> Document:
    """{name: Place, …, "__metadata__": {text: text}}. DamagedFile if header and file length disagree."""
    length = int.from_bytes(source.head[:8], "little")
    header = source.read(8, 8 + length)
    fingerprint = (header, source.size)
    if previous and previous.fingerprint == fingerprint:
        return Document(source.path, previous.format, previous.tree, (source.file,), previous.fingerprint)
    try:
        entries = json.loads(header, object_pairs_hook=no_twins)
        tree = {valid(name): read_entry(name, entry, 8 + length, source) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise DamagedFile(f"{source.path}: its header is not sound: {type(problem).__name__}: {problem}") from None
    ends = [e["data_offsets"][1] for n, e in entries.items() if n != "__metadata__"]
    described = 8 + length + max(ends, default=0)
    if described != source.size:
        raise DamagedFile(
            f"{source.path}: the header describes {described} bytes, the file has {source.size}: truncated?"
        )
    return Document(source.path, FORMAT.name, tree, (source.file,), fingerprint)


def read_entry(name: str, entry: Any, start: int, source: Source) -> Any:
    """The Place of one tensor; metadata as it is; an Inert for element types that are not read here."""
    if name == "__metadata__":
        return {"format": "mlx"} if entry is None else entry  # MLX writes null, nobody else does
    first, stop = entry["data_offsets"]
    if not (type(first) is int and type(stop) is int and 0 <= first <= stop and start + stop <= source.size):
        raise DamagedFile(f"{source.path}: tensor {name} lies at bytes {first} to {stop}, outside the file: truncated?")
    dtype = SAFETENSORS.get(entry["dtype"])
    if dtype is None:
        return Inert(f"tensor of dtype {entry['dtype']}")
    place = placed(entry["shape"], None, dtype, 0, start + first, stop - first, f"{source.path}: {name}")
    if place.nbytes != stop - first:
        raise DamagedFile(f"{source.path}: tensor {name} has {stop - first} bytes, its shape needs {place.nbytes}")
    return place


def valid(name: str) -> str:
    """The name, with half surrogate pairs (JSON allows them, UTF-8 does not) written out."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError if a key stands twice."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


FORMAT = Format("safetensors", matches, open_document)
