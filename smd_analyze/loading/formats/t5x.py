"""T5X, and Orbax before it had _METADATA: a msgpack file `checkpoint` and a tensorstore array for each large leaf.

In the msgpack's tree stands, in the place of such a leaf, T5X' spec of the array or Orbax' "PLACEHOLDER://name". Only
the name is used of either, and only if the array lies in this folder. Source: t5x/checkpoints.py, orbax 0.2 utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.encodings.msgpack_values import Reader
from smd_analyze.loading.encodings.tensorstore_arrays import HEADERS, MANIFEST, below, find_arrays, identities
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.base import Document, FolderFormat, shared
from smd_analyze.loading.tensors.trees import moved
from smd_analyze.records.finding import Finding

TREE = "checkpoint"
MARK = "PLACEHOLDER://"


def claims(path: str, files: Sequence[str], below_it: Sequence[str]) -> tuple[str, ...]:
    """The msgpack file beside a database or a folder that is an array."""
    if TREE not in files or "_METADATA" in files or "_CHECKPOINT_METADATA" in files:
        return ()
    stored = MANIFEST in files or any(Path(path, b, h).is_file() for b in below_it for h in HEADERS)
    return below(path) if stored else ()


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The msgpack's tree with its arrays."""
    found = identities(path, files)
    arrays = find_arrays(found, path)
    with open_source(f"{path}/{TREE}") as source:
        reader = Reader(source)
        said = reader.value(0)
        if reader.at != source.size or type(said) is not dict:
            raise DamagedFile(f"{path}/{TREE}: is no single msgpack map: damaged?")
    tree = filled(moved(said, files.index(TREE)), arrays, path, 0)
    return Document(path, FORMAT.name, shared(tree, previous), found, folder=True), []


def filled(node: Any, arrays: Mapping[str, Any], path: str, depth: int) -> Any:
    """The tree with arrays where it names them."""
    if depth > 100:
        raise UnsafeFile(f"{path}/{TREE}: refused: more than 100 levels")
    name = name_of(node)
    if name is not None:
        if name in arrays:
            return arrays[name]
        if name.startswith(("/", "../")) or "/../" in name or ":" in name:
            raise UnsafeFile(f"{path}/{TREE}: refused: names an array outside its folder: {name}")
        raise DamagedFile(f"{path}: {name} is named by {TREE}, but its array is missing; copy the whole folder")
    if type(node) is dict:
        return {k: filled(v, arrays, path, depth + 1) for k, v in node.items()}
    return [filled(v, arrays, path, depth + 1) for v in node] if type(node) is list else node


def name_of(node: Any) -> str | None:
    """The array that a leaf stands for."""
    if type(node) is str and node.startswith(MARK):
        return node[len(MARK) :].rstrip("/")
    if type(node) is dict and isinstance(node.get("driver"), str) and ("kvstore" in node or "base" in node):
        inner = node.get("base") if node["driver"] == "cast" else node
        store = inner.get("kvstore") if type(inner) is dict else None
        said = store.get("path") if type(store) is dict else None
        said = said if said else inner.get("path") if type(inner) is dict else None
        return said.rstrip("/") if isinstance(said, str) else ""
    return None


FORMAT = FolderFormat("t5x", claims, open_folder, ("tensorstore", "ml_dtypes"), extra="orbax", steps_in_name=True)
