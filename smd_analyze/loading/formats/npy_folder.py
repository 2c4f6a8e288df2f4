"""A folder of .npy files, one array each: the arrays' names are the files'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smd_analyze.errors import SmdError, UnsafeFile
from smd_analyze.loading.formats.base import Document, FolderFormat, shared
from smd_analyze.loading.inert_objects import Inert
from smd_analyze.loading.numpy_arrays import read_header
from smd_analyze.loading.numpy_objects import holds_objects
from smd_analyze.loading.sources import FileId, open_source
from smd_analyze.loading.tensors import Place, renumbered
from smd_analyze.records.finding import Finding


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """All files of a folder without folders, if every one is called .npy and the first is no dict of arrays itself."""
    mine = [f for f in files if not f.startswith(".")]
    if not mine or below or not all(f.endswith(".npy") for f in mine):
        return ()
    try:
        with open_source(f"{path}/{mine[0]}") as source:
            return () if len(mine) > 1 and holds_objects(source.head) else tuple(mine)
    except (SmdError, OSError):
        return tuple(mine)  # opening it will say why


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
