"""What lies beside the parts of a sharded checkpoint: optimizer, scheduler, trainer's state, in files of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smd_analyze.errors import SmdError
from smd_analyze.loading.files.findings import unreadable
from smd_analyze.loading.files.listing import identity, read_json
from smd_analyze.loading.files.sources import FileId
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.pickles.torch_files import TorchFiles
from smd_analyze.records.finding import Finding

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
    reader = TorchFiles(path, first)
    findings: list[Finding] = []
    for name in (n for n in names if is_beside(n)):
        file = f"{path}/{name}"
        try:
            if name.endswith(".json"):
                found = read_json(file)
                reader.identities.append(identity(file))
            else:
                found = reader.read(name)
            if name in NESTED:
                tree[NESTED[name]] = found
            elif type(found) is dict:
                tree = {**found, **tree}
        except (SmdError, OSError) as problem:
            findings.append(unreadable(file, problem))
    return tree, reader.identities, findings


def with_beside(
    document: Document, findings: Sequence[Finding], path: str, names: Sequence[str]
) -> tuple[Document, list[Finding]]:
    """The document with what lies beside it; what it holds itself wins."""
    tree, files, more = read_beside(path, names, len(document.files))
    made = Document(document.path, document.format, {**tree, **document.tree}, (*document.files, *files), folder=True)
    return made, [*findings, *more]
