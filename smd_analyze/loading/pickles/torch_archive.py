"""The zip that torch.save writes: data.pkl and one stored member per storage, as a whole file or inside another.

Source: torch/serialization.py `_save`; caffe2/serialize/inline_container.cc (members are aligned, never compressed).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import FileId, Source, changed, open_source, part_of
from smd_analyze.loading.files.zip_directory import data_start, read_directory
from smd_analyze.loading.pickles.inert_pickle import read_pickle
from smd_analyze.loading.pickles.pickled_tensors import Stored, TensorCalls
from smd_analyze.loading.tensors.places import Place


def root_of(source: Source) -> str | None:
    """The folder within the archive that holds data.pkl ("" or "name/"), or None."""
    found = [n for n in read_directory(source) if n == "data.pkl" or (n.endswith("/data.pkl") and n.count("/") == 1)]
    return found[0][: -len("data.pkl")] if len(found) == 1 else None


def read_archive(source: Source, known: tuple[Any, Any] | None = None) -> tuple[Any, Any]:
    """(what was saved, with Places for tensors; its fingerprint). Nothing is run; compressed members are refused.

    `known` is such a pair: its tree is given back if the fingerprint is the same.
    """
    members = read_directory(source)
    root = root_of(source) or ""
    skip = len(root)
    stored: dict[str, tuple[int, int]] = {}
    for name, member in members.items():
        if name.startswith(root):
            short = name[skip:]
            if short.startswith(("data/", "constants/")) or short in ("data.pkl", "byteorder"):
                stored[short] = (data_start(source, name, member), member.size)
    if "data.pkl" not in stored:
        raise DamagedFile(f"{source.path}: a zip archive without a data.pkl")
    start, size = stored["data.pkl"]
    check_byte_order(source, stored.get("byteorder"))
    pickled = source.read(start, start + size)
    fingerprint = (pickled, stored)
    if known and known[1] == fingerprint:
        return known

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
    return calls.finish(tree), fingerprint


def check_byte_order(source: Source, where: tuple[int, int] | None) -> None:
    """DamagedFile if the archive's member "byteorder", at (start, size), does not say "little"."""
    if where is not None and source.read(where[0], sum(where)) != b"little":
        raise DamagedFile(
            f"{source.path}: written on a big-endian machine; load and save it again on a little-endian one"
        )


def find_inside(file: FileId, place: Place) -> Place:
    """The one tensor of the archive that lies in a file from byte `place.start`, `place.within` bytes long."""
    with open_source(file.path) as source:
        if source.file != file:
            raise changed(file.path)
        tree, _ = read_archive(part_of(source, place.start, place.within))
    if type(tree) is not Place or tree.inline is not None:
        raise DamagedFile(f"{file.path}: no tensor lies at byte {place.start}, where the index says that one does")
    return replace(tree, start=place.start + tree.start)
