"""torch.save before 1.6: five pickles one after the other, then the storages' raw elements.

Source: torch/serialization.py `_legacy_save`: magic number, protocol, system, the object, storage keys; then for each
key its number of elements (int64) and the elements.
"""

from __future__ import annotations

import struct
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.dtypes import ITEMSIZE
from smd_analyze.loading.formats.base import Document, Format
from smd_analyze.loading.inert_pickle import read_pickle
from smd_analyze.loading.pickled_tensors import Stored, TensorCalls, storage_dtype
from smd_analyze.loading.sources import Source

MAGIC = b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."


def matches(source: Source) -> bool:
    """A pickle of torch's magic number."""
    return source.head[:1] == b"\x80" and source.head[2 : 2 + len(MAGIC)] == MAGIC


def open_document(source: Source, previous: Document | None) -> Document:
    """What was saved, with Places for tensors. The pickle is walked twice: storages stand behind their users."""
    at, what = 0, source.path
    for name in ("magic number", "protocol", "system"):
        value, at = read_pickle(source.read, at, source.size, what=what)
        if name == "system" and isinstance(value, dict) and not value.get("little_endian", True):
            raise DamagedFile(f"{what}: written on a big-endian machine; load and save it again on a little-endian one")
    dtypes: dict[Any, str] = {}

    def note(key: Any) -> Any:
        if isinstance(key, tuple) and len(key) >= 5 and key[0] == "storage":
            dtypes[key[2]] = storage_dtype(key[1])
        return None

    _, after = read_pickle(source.read, at, source.size, what=what, resolve=note)
    keys, position = read_pickle(source.read, after, source.size, what=what)
    fingerprint = (source.read(at, position), source.size)
    if previous and previous.fingerprint == fingerprint:
        return Document(what, previous.format, previous.tree, (source.file,), previous.fingerprint)
    places = locate_storages(source, keys, dtypes, position)

    def locate(key: Any, dtype: str) -> Stored:
        if key not in places:
            raise DamagedFile(f"{what}: storage {key} is missing")
        return places[key]

    calls = TensorCalls(what, locate)
    tree, _ = read_pickle(source.read, at, source.size, what=what, call=calls.call, resolve=calls.resolve)
    return Document(what, FORMAT.name, calls.finish(tree), (source.file,), fingerprint)


def locate_storages(source: Source, keys: Any, dtypes: dict[Any, str], position: int) -> dict[Any, Stored]:
    """Where each storage lies, in the order of `keys` from byte `position` on."""
    if not isinstance(keys, list):
        raise DamagedFile(f"{source.path}: no list of storages")
    places: dict[Any, Stored] = {}
    for key in keys:
        dtype = dtypes.get(key, "uint8")
        count = struct.unpack("<q", source.read(position, position + 8))[0]
        size = count * ITEMSIZE.get(dtype, 1)
        if count < 0 or position + 8 + size > source.size:
            raise DamagedFile(f"{source.path}: storage {key} of {count} elements passes the end of the file: truncated")
        places[key] = Stored(position + 8, size, dtype)
        position += 8 + size
    return places


FORMAT = Format("torch legacy", matches, open_document)
