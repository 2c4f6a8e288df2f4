"""torch.distributed.checkpoint (DCP): a folder with .metadata and *.distcp files; FSDP2, torchtitan, Megatron-core.

Trainers put several such folders, and files beside them, into one checkpoint's folder: accelerate and transformers
(pytorch_model_fsdp_0, optimizer_0), OLMo-core (model_and_optim, train), NeMo (weights, context).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from smd_analyze.errors import UnknownFormat
from smd_analyze.loading.files.listing import is_file
from smd_analyze.loading.files.sources import FileId
from smd_analyze.loading.formats.base import Document, FolderFormat
from smd_analyze.loading.formats.beside import is_beside, with_beside
from smd_analyze.loading.parallel.distributed_table import read_folder
from smd_analyze.records.finding import Finding

ROLES = re.compile(
    r"(pytorch_)?model(_fsdp)?(_\d+)?|optim(izer)?(_\d+)?|model_and_optim|weights|dist_ckpt|state|ema(_\w+)?|distcp|dcp"
)
"""Folders that are a part of a checkpoint: named by what they hold, not by a step."""


SEVERAL = re.compile(r"(checkpoint|ckpt|step|global_step|epoch|iter)s?([-_=]?\d+.*)?$", re.IGNORECASE)
ZARR = "metadata.json"


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """A folder that holds .metadata and parts, or folders that do; without .metadata, a save is not finished."""
    if ".metadata" in files and any(f.endswith(".distcp") for f in files):
        return (".metadata", *(f for f in files if f.endswith(".distcp") or is_beside(f)))
    inner = sorted(b for b in below if ROLES.fullmatch(b) and is_file(f"{path}/{b}/.metadata"))
    if any(SEVERAL.match(b) or (b not in inner and is_file(f"{path}/{b}/.metadata")) for b in below):
        return ()  # a run with checkpoints of its own, one of which bears such a name
    if not inner:
        zarr = "common.pt" in files and "metadata.json" in files and ".metadata" not in files
        return (ZARR,) if zarr and any(is_file(f"{path}/{b}/.zarray") for b in below) else ()
    beside = [f for f in files if is_beside(f)]
    if "train" in below and is_file(f"{path}/train/rank0.pt"):
        beside.append("train/rank0.pt")
    common = [f"{b}/common.pt" for b in inner if is_file(f"{path}/{b}/common.pt")]
    unfinished = [f"{b}/" for b in below if re.fullmatch(r"optim(izer)?(_\d+)?", b) and b not in inner]
    return (*(f"{b}/.metadata" for b in inner), *common, *unfinished, *beside)


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The folder's tree, as its writer nested it. Tensors are named, not read; small values are."""
    if ZARR in files:
        words = "is in Megatron-core's older zarr format, whose arrays do not say which layers they stack: not read"
        raise UnknownFormat(f"{path}: {words}; load it with Megatron and save it as torch_dist")
    inner = [f.rpartition("/.metadata")[0] for f in files if f.endswith(".metadata")]
    tree: dict[Any, Any] = {}
    identities: list[FileId] = []
    for name in sorted(inner, key=lambda n: "optim" in n):
        found, used = read_folder(f"{path}/{name}" if name else path, len(identities))
        identities += used
        if "optim" in name and "model" not in name and not any("optim" in str(k) for k in found):
            found = {"optimizer": found}
        tree |= {key if key not in tree else f"{name}.{key}": value for key, value in found.items()}
    findings = [
        Finding("optimizer-not-read", "warning", f"{path}/{f}", "has no .metadata: its save is not finished")
        for f in files
        if f.endswith("/")
    ]
    document = Document(path, FORMAT.name, tree, tuple(identities), folder=True)
    for name in inner if inner != [""] else ():
        if f"{name}/common.pt" in files:
            document, findings = with_beside(document, findings, f"{path}/{name}", ["common.pt"])
    return with_beside(document, findings, path, files)


FORMAT = FolderFormat("torch DCP", claims, open_folder)
