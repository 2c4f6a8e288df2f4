"""What a format is: it recognises a file by its bytes and turns it into a tree whose leaves are tensor places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from smd_analyze.loading.files.sources import FileId, Source
from smd_analyze.records.finding import Finding


@dataclass(frozen=True)
class Document:
    """A file (or a folder that is one checkpoint) as plain data.

    `tree` is made of dicts, lists, numbers, text, Places and Inert objects; it knows no path and may be shared between
    documents. `fingerprint` is what the tree was made of: equal fingerprints mean equal trees.
    """

    path: str
    format: str
    tree: Any
    files: tuple[FileId, ...]
    fingerprint: Any = field(default=None, repr=False)
    folder: bool = False


@dataclass(frozen=True)
class Format:
    """One way in which tensors lie in a file.

    `matches(source)` looks at few bytes and runs nothing. `open(source, previous)` names the tensors, reads none;
    `previous` is the last document of this format, whose tree is used again if the files have one layout.
    `requires` are the libraries that reading needs; recognising needs none.
    """

    name: str
    matches: Callable[[Source], bool]
    open: Callable[[Source, Document | None], Document]
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class FolderFormat:
    """One way in which a folder is one checkpoint.

    `claims(path, files, below)` gets the names of the files and folders in it and returns the files (relative to
    `path`) that make the checkpoint up, or () if it is none of this kind; it reads nothing but names.
    `open(path, files, previous)` names the tensors, as in Format; findings tell what beside the weights is missing.
    `extra` is the extra of this package that brings what it `requires`. `steps_in_name`: the number by which the
    writer names its folders counts optimizer steps.
    """

    name: str
    claims: Callable[[str, Sequence[str], Sequence[str]], tuple[str, ...]]
    open: Callable[[str, Sequence[str], Document | None], tuple[Document, list[Finding]]]
    requires: tuple[str, ...] = ()
    extra: str = ""
    steps_in_name: bool = False


def shared(tree: Any, previous: Document | None) -> Any:
    """The previous document's own tree if this one equals it, so that all checkpoints of a run share one."""
    return previous.tree if previous is not None and previous.tree == tree else tree
