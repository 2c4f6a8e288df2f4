"""A folder of .npy files, one array each: the arrays' names are the files', with the folders below a save's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from smd_analyze.errors import SmdError, UnsafeFile
from smd_analyze.loading.encodings.numpy_arrays import read_header
from smd_analyze.loading.files import listing
from smd_analyze.loading.files.sources import FileId, open_source
from smd_analyze.loading.formats.base import Document, FolderFormat, shared
from smd_analyze.loading.pickles.numpy_objects import holds_objects
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place, renumbered
from smd_analyze.records.finding import Finding

SAVE = re.compile(r"(^|\D)\d+$")
SAVES = re.compile(r"\d+|.*(checkpoint|ckpt|step|epoch|iter|save)\w*[-_.=]?\d+", re.IGNORECASE)
MOST = 10_000


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """All files of a folder, if every one is called .npy and the first is no dict of arrays itself.

    Those of folders below count only where the folder is numbered like one of several saves and those below are not.
    """
    mine = [f for f in files if not f.startswith(".")]
    if below and SAVE.search(path) and all(f.endswith(".npy") for f in mine):
        mine = inside(path) if not any(SAVES.fullmatch(b) for b in below) else []
    elif below:
        return ()
    if not mine or not all(f.endswith(".npy") for f in mine):
        return ()
    try:
        with open_source(f"{path}/{mine[0]}") as source:
            return () if len(mine) > 1 and holds_objects(source.head) else tuple(mine)
    except (SmdError, OSError):
        return tuple(mine)  # opening it will say why


def inside(path: str) -> list[str]:
    """Everything in the folder, relative to it; nothing if that is much, or if a folder cannot be listed."""
    found: list[str] = []
    closed: list[OSError] = []
    for folder, _, files in listing.walk(path, closed.append):
        here = listing.relative(folder, path)
        found += [f if here == "." else f"{here}/{f}" for f in files if not f.startswith(".")]
        if len(found) > MOST or closed:
            return []
    return sorted(found)


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """{name: Place}; UnsafeFile if none of the arrays holds numbers."""
    tree: dict[str, Any] = {}
    identities: list[FileId] = []
    for number, name in enumerate(files):
        with open_source(f"{path}/{name}") as source:
            array, _ = read_header(source.read, 0, source.size, source.path)
            tree[name[:-4]] = renumbered(array, lambda _, n=number: n) if type(array) is Place else array
            identities.append(source.file)
    if all(type(v) is Inert for v in tree.values()):
        raise UnsafeFile(f"{path}: refused: its arrays are no numbers but pickled objects or text")
    return Document(path, FORMAT.name, shared(tree, previous), tuple(identities), folder=True), []


FORMAT = FolderFormat("npy folder", claims, open_folder)
