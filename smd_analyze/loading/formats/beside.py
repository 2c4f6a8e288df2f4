"""What lies beside the parts of a sharded checkpoint: optimizer, scheduler, trainer's state, in files of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from smd_analyze.errors import DamagedFile, SmdError
from smd_analyze.loading.files.listing import identity, read_whole
from smd_analyze.loading.files.sources import FileId, open_source
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.pickles.torch_archive import read_archive
from smd_analyze.loading.tensors.trees import moved
from smd_analyze.records.finding import Finding

LONGEST_JSON = 1 << 26
NESTED = {
    "optimizer.pt": "optimizer", "optimizer.bin": "optimizer", "scheduler.pt": "scheduler",
    "scheduler.bin": "scheduler", "training_args.bin": "training_args", "trainer_state.json": "trainer_state",
}  # fmt: skip
"""File → key under which its content goes into the tree (transformers, accelerate)."""
MERGED = ("common.pt", "meta.pt", "train/rank0.pt", "train.pt")
"""Dicts of the trainer's own: Megatron-core, Lightning, OLMo-core, OLMo."""


def is_beside(name: str) -> bool:
    """A file whose content `read_beside` adds."""
    return name in NESTED or name in MERGED


def read_beside(path: str, names: Sequence[str], first: int) -> tuple[dict[Any, Any], list[FileId], list[Finding]]:
    """(tree of all of them, their files, which count from `first`, a finding for each that cannot be read)."""
    tree: dict[Any, Any] = {}
    files: list[FileId] = []
    findings: list[Finding] = []
    for name in (n for n in names if is_beside(n)):
        file = f"{path}/{name}"
        try:
            if name.endswith(".json"):
                found, one = read_json(file), identity(file)
            else:
                with open_source(file) as source:
                    found, one = read_archive(source)[0], source.file
            found = moved(found, first + len(files))
            if name in NESTED:
                tree[NESTED[name]] = found
            elif type(found) is dict:
                tree = {**found, **tree}
            files.append(one)
        except (SmdError, OSError) as problem:
            words = str(problem).removeprefix(f"{file}: ")
            findings.append(Finding("unreadable-file", "warning", file, words, "Its settings are not used."))
    return tree, files, findings


def read_json(path: str) -> Any:
    """A JSON file of bounded length."""
    try:
        return json.loads(read_whole(path, LONGEST_JSON))
    except (ValueError, RecursionError) as problem:
        raise DamagedFile(f"{path}: not sound JSON: {problem}") from None


def with_beside(
    document: Document, findings: Sequence[Finding], path: str, names: Sequence[str]
) -> tuple[Document, list[Finding]]:
    """The document with what lies beside it; what it holds itself wins."""
    tree, files, more = read_beside(path, names, len(document.files))
    made = Document(document.path, document.format, {**tree, **document.tree}, (*document.files, *files), folder=True)
    return made, [*findings, *more]
