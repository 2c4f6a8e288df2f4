"""torch.save since 1.6, and TorchScript: a zip that holds data.pkl and one stored member per storage.

Source: torch/serialization.py `_save`; caffe2/serialize/inline_container.cc (members are aligned, never compressed).
"""

from __future__ import annotations

from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.formats.base import Document, Format
from smd_analyze.loading.inert_pickle import read_pickle
from smd_analyze.loading.pickled_tensors import Stored, TensorCalls
from smd_analyze.loading.sources import Source
from smd_analyze.loading.zip_directory import data_start, read_directory


def root_of(source: Source) -> str | None:
    """The folder within the archive that holds data.pkl ("" or "name/"), or None."""
    found = [n for n in read_directory(source) if n == "data.pkl" or (n.endswith("/data.pkl") and n.count("/") == 1)]
    return found[0][: -len("data.pkl")] if len(found) == 1 else None


def matches(source: Source) -> bool:
    """A zip with exactly one data.pkl at its top; a zip that is cut short counts if data.pkl is its first member."""
    if source.head[:4] != b"PK\x03\x04":
        return False
    try:
        return root_of(source) is not None
    except DamagedFile:
        length = int.from_bytes(source.head[26:28], "little")
        return source.head[30 : 30 + length].endswith(b"data.pkl")


def open_document(source: Source, previous: Document | None) -> Document:
    """What was saved, with Places for tensors. Nothing of it is run; compressed members are refused."""
    members = read_directory(source)
    root = root_of(source) or ""
    skip = len(root)
    stored: dict[str, tuple[int, int]] = {}
    for name, member in members.items():
        if name.startswith(root):
            short = name[skip:]
            if short.startswith(("data/", "constants/")) or short in ("data.pkl", "byteorder"):
                stored[short] = (data_start(source, name, member), member.size)
    start, size = stored["data.pkl"]
    if "byteorder" in stored and source.read(stored["byteorder"][0], sum(stored["byteorder"])) != b"little":
        raise DamagedFile(
            f"{source.path}: written on a big-endian machine; load and save it again on a little-endian one"
        )
    pickled = source.read(start, start + size)
    fingerprint = (pickled, stored)
    if previous and previous.fingerprint == fingerprint:
        return Document(source.path, previous.format, previous.tree, (source.file,), previous.fingerprint)

    def locate(key: Any, dtype: str) -> Stored:
        place = stored.get(f"data/{key}")
        if place is None:
            raise DamagedFile(f"{source.path}: storage {key} is missing from the archive")
        return Stored(*place, dtype)

    calls = TensorCalls(source.path, locate)
    tree, _ = read_pickle(
        lambda a, b: pickled[a - start : b - start],
        start,
        start + size,
        what=source.path,
        call=calls.call,
        resolve=calls.resolve,
    )
    return Document(source.path, FORMAT.name, calls.finish(tree), (source.file,), fingerprint)


FORMAT = Format("torch zip", matches, open_document)
