"""What torch.save wrote before 1.6, as a whole file or inside a pickle: pickles one after the other, then raw storages.

Source: torch/serialization.py `_legacy_save`: magic number, protocol, system, the object, storage keys; then for each
key its number of elements (int64) and the elements. A storage that is pickled by itself (`TypedStorage.__reduce__`)
is such a stream that holds nothing else.
"""

from __future__ import annotations

import struct
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import Source, part_of
from smd_analyze.loading.pickles.inert_pickle import read_pickle
from smd_analyze.loading.pickles.pickled_tensors import Stored, TensorCalls, storage_dtype
from smd_analyze.loading.tensors.dtypes import ITEMSIZE
from smd_analyze.loading.tensors.inert_objects import Span

MAGIC = b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."


def is_stream(source: Source) -> bool:
    """A pickle of torch's magic number."""
    return source.head[:1] == b"\x80" and source.head[2 : 2 + len(MAGIC)] == MAGIC


def read_stream(source: Source, known: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """(what was saved, with Places for tensors; its fingerprint). The object is walked twice: storages stand behind it.

    `known` is such a pair: its tree is given back if the fingerprint is the same.
    """
    at, what = 0, source.path
    for name in ("magic number", "protocol", "system"):
        value, at = read_pickle(source.read, at, source.size, what=what)
        if name == "system" and isinstance(value, dict) and not value.get("little_endian", True):
            raise DamagedFile(f"{what}: written on a big-endian machine; load and save it again on a little-endian one")
    dtypes: dict[Any, str] = {}
    counts: dict[Any, Any] = {}

    def note(key: Any) -> Any:
        if isinstance(key, tuple) and len(key) >= 5 and key[0] == "storage":
            dtypes[key[2]] = storage_dtype(key[1])
            counts[key[2]] = key[4]
        return None

    _, after = read_pickle(source.read, at, source.size, what=what, resolve=note)
    keys, position = read_pickle(source.read, after, source.size, what=what)
    fingerprint = (source.read(at, position), source.size)
    if known and known[1] == fingerprint:
        return known
    source.expect(likely_counts(keys, dtypes, counts, position))
    places = locate_storages(source, keys, dtypes, position)

    def locate(key: Any, dtype: str) -> Stored:
        if key not in places:
            raise DamagedFile(f"{what}: storage {key} is missing")
        return places[key]

    calls = TensorCalls(what, locate)
    tree, _ = read_pickle(source.read, at, source.size, what=what, call=calls.call, resolve=calls.resolve)
    return calls.finish(tree), fingerprint


def likely_counts(keys: Any, dtypes: dict[Any, str], counts: dict[Any, Any], position: int) -> list[tuple[int, int]]:
    """Where each storage's number of elements stands, if the storages are as long as their users say."""
    out: list[tuple[int, int]] = []
    for key in keys if isinstance(keys, list) else ():
        out.append((position, position + 8))
        count = counts.get(key)
        position += 8 + (count if type(count) is int else 0) * ITEMSIZE.get(dtypes.get(key, "uint8"), 1)
    return out


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


def storage_inside(source: Source, span: Span) -> Stored | None:
    """The storage that a pickle holds as bytes of its own: where its elements lie in the file. None if it is none."""
    part = part_of(source, span.start, span.stop - span.start)
    if not is_stream(part):
        return None
    found, _ = read_stream(part)
    return found._replace(start=found.start + span.start) if isinstance(found, Stored) else None
