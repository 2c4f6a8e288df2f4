"""Orbax: a folder per step with an item in each of its folders (`10/default/`, `0/items/`), or one item by itself.

An item is a tree of arrays (_METADATA names its leaves; the arrays lie in an OCDBT database or in a zarr folder each)
or a JSON file. Source: orbax/checkpoint/_src/metadata/tree.py, orbax.readthedocs.io (Checkpoint Format Guide).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.encodings.msgpack_values import Reader
from smd_analyze.loading.encodings.tensorstore_arrays import below, find_arrays, identities, read_stored
from smd_analyze.loading.files.listing import read_json
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.base import Document, FolderFormat, shared
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import moved, nested
from smd_analyze.records.finding import Finding

TREE, STEP = "_METADATA", "_CHECKPOINT_METADATA"
JSON_ITEM = "metadata"  # the file of JsonSave; the manager's metrics are not read: they differ in every checkpoint
WHOLE = "checkpoint"  # versions before 0.5: a msgpack of the tree, with those leaves that are no arrays of their own
USUAL = ("default", "items", "state", "pytree")  # names of an item that say nothing
LABELS = re.compile(r"best|last|latest|final", re.IGNORECASE)
MOST_LEAVES = 300_000


def claims(path: str, files: Sequence[str], below_it: Sequence[str]) -> tuple[str, ...]:
    """A folder with Orbax' own file, or one all of whose items are called by words: numbers would be steps."""
    if TREE in files or STEP in files:
        return below(path)
    items = [b for b in below_it if Path(path, b, TREE).is_file()]
    if not items or any(re.search(r"\d", b) or LABELS.search(b) for b in items):
        return ()
    return below(path)


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """Arrays as the tree that was saved; several items under their names, JSON as it is under "config" and the like."""
    said = read_json(f"{path}/{STEP}") if STEP in files else {}
    if unfinished(said, files):
        raise DamagedFile(f"{path}: this save was not finished; wait, or remove the folder")
    found = identities(path, files)
    arrays = find_arrays(found, path)
    trees: dict[str, Any] = {}
    for item in sorted({f.rpartition("/")[0] for f in files if f == TREE or f.endswith("/" + TREE)}):
        prefix = item + "/" if item else ""
        mine = {n[len(prefix) :]: p for n, p in arrays.items() if n.startswith(prefix)}
        if prefix + WHOLE in files:
            mine = in_one_file(f"{path}/{prefix}{WHOLE}", files.index(prefix + WHOLE)) | mine
        trees[item] = tree_of(f"{path}/{prefix}{TREE}", mine)
    taken = tuple(i + "/" for i in trees if i)
    rest = {n: p for n, p in arrays.items() if "" not in trees and not n.startswith(taken)}
    for name, place in rest.items():  # items of versions without _METADATA: names with dots
        item, _, key = name.partition("/")
        trees.setdefault(item, {})[key.replace("/", ".")] = place
    trees = {i: nested(t, ".") if any(n.startswith(i + "/") for n in rest) else t for i, t in trees.items()}
    texts = json_items(path, files)
    tree = merged(trees, texts)
    custom = said.get("custom_metadata") if isinstance(said, dict) else None
    if isinstance(custom, dict) and custom and "custom_metadata" not in tree:
        tree["custom_metadata"] = custom
    return Document(path, FORMAT.name, shared(tree, previous), found, folder=True), []


def unfinished(said: Any, files: Sequence[str]) -> bool:
    """It was begun, and neither its own file nor the mark of success says that it ended."""
    begun = isinstance(said, dict) and said.get("init_timestamp_nsecs") is not None
    return begun and said.get("commit_timestamp_nsecs") is None and "commit_success.txt" not in files


def tree_of(path: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The item's tree: its leaves with the arrays that bear their names. Lists and tuples are dicts of numbers."""
    said = read_json(path)
    leaves = said.get("tree_metadata") if isinstance(said, dict) else None
    if not isinstance(leaves, dict) or len(leaves) > MOST_LEAVES:
        raise DamagedFile(f"{path}: names no leaves")
    stored = said.get("store_array_data_equal_to_fill_value") is True
    tree: dict[str, Any] = {}
    for title, leaf in leaves.items():
        keys, kind, skipped = leaf_of(leaf)
        if not keys:
            if len(leaves) == 1:  # the tree is a single array
                keys = ("",)
            else:
                raise DamagedFile(f"{path}: leaf {title} has no path")
        name = ".".join(keys)
        value = arrays.get(name)
        if type(value) is Place and value.read is not None and stored:
            value = replace(value, read=read_stored)
        if value is None and (skipped or kind in ("None", "Dict", "string", "str")):
            value = None if kind in ("None", "string", "str") else {}
        elif value is None:
            raise DamagedFile(f"{path}: {name} is named there, but its array is missing; copy the whole folder")
        node = tree
        for key in keys[:-1]:
            inner = node.setdefault(key, {})
            if type(inner) is not dict:
                raise DamagedFile(f"{path}: {name} lies inside another leaf")
            node = inner
        node[keys[-1]] = value
    return tree


def in_one_file(path: str, number: int) -> dict[str, Any]:
    """The leaves that lie in the msgpack itself, under dotted names; not those that only stand for an array."""
    with open_source(path) as source:
        tree = moved(Reader(source).value(0), number)
    out: dict[str, Any] = {}

    def walk(node: Any, name: str) -> None:
        pairs = node.items() if type(node) is dict else enumerate(node) if type(node) is list else ()
        for key, value in pairs:
            inner = f"{name}.{key}" if name else str(key)
            if type(value) is Place or type(value) in (int, float, bool):
                out[inner] = value
            walk(value, inner)

    walk(tree, "")
    return out


def leaf_of(leaf: Any) -> tuple[tuple[str, ...], str, bool]:
    """(path of a leaf; what it was: jax.Array, np.ndarray, scalar, string, None, Dict, …; nothing was stored)."""
    try:
        keys = tuple(str(k["key"]) for k in leaf["key_metadata"])
        said = leaf.get("value_metadata") or {}
        return keys, str(said.get("value_type", "")), said.get("skip_deserialize") is True
    except (TypeError, KeyError, AttributeError):
        return (), "", False


def json_items(path: str, files: Sequence[str]) -> dict[str, Any]:
    """Item → what JsonSave wrote; one that is not sound is passed over."""
    out: dict[str, Any] = {}
    for name in files:
        item, _, leaf = name.rpartition("/")
        if item and "/" not in item and leaf == JSON_ITEM and f"{item}/{TREE}" not in files:
            value = read_json(f"{path}/{name}")
            out[item] = value if isinstance(value, dict | list) else Inert("JSON")
    return out


def merged(trees: Mapping[str, Any], texts: Mapping[str, Any]) -> dict[str, Any]:
    """One tree: an item whose name says nothing is the tree itself if there is no other with arrays."""
    named = {i: t for i, t in trees.items() if i not in USUAL and i}
    if len(trees) == 1 and not named:
        tree = next(iter(trees.values()))
        return {**{k: v for k, v in texts.items() if k not in tree}, **tree}
    return {**texts, **trees}


FORMAT = FolderFormat("orbax", claims, open_folder, ("tensorstore", "ml_dtypes"), extra="orbax", steps_in_name=True)
