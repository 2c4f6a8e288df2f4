"""A folder in which every rank saved its own part with torch.save: verl, accelerate without DCP, OLMo's local files.

model_world_size_2_rank_0.pt holds DTensors or ShardedTensors, which say what part they are. Flat parameters of FSDP 1
do not: they are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.formats.base import Document, FolderFormat
from smd_analyze.loading.formats.beside import is_beside, with_beside
from smd_analyze.loading.parallel.rank_parts import put_together, refuse_flat
from smd_analyze.loading.pickles.torch_files import TorchFiles
from smd_analyze.loading.tensors.trees import as_dict, tensors
from smd_analyze.records.finding import Finding

RANK = re.compile(r"(?:(.*?)(?:_world_size_(\d+))?_)?rank_?(\d+)\.(pt|bin|pth)")
MODELS = re.compile(r"model|pytorch_model_fsdp(_\d+)?|fsdp_model|")
KEYS = (("optim", "optimizer"), ("extra", ""))


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """One model file per rank, and what has the ranks' names beside them."""
    found = [(f, m) for f in sorted(files) if (m := RANK.fullmatch(f))]
    models = [f for f, m in found if MODELS.fullmatch(m[1] or "")]
    named = any(m[1] for f, m in found if f in models)
    if not models or not (named or len(models) > 1):
        return ()
    others = [f for f, m in found if f not in models and (m[1] or "").startswith(("optim", "extra"))]
    return (*models, *others, *(f for f in files if is_beside(f)))


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """{"model": …, "optimizer": …, and what else the first rank saved}, all ranks' parts put together."""
    reader = TorchFiles(path)
    stems: dict[str, list[tuple[int, int, str]]] = {}
    for name in files:
        found = RANK.fullmatch(name)
        if found:
            stems.setdefault(found[1] or "", []).append((int(found[3]), int(found[2] or 0), name))
    tree: dict[Any, Any] = {}
    for stem, ranks in stems.items():
        key = next((key for word, key in KEYS if stem.startswith(word)), "model")
        check_ranks(path, ranks)
        whole = put_together([reader.read(name) for _, _, name in sorted(ranks)], path)
        if key == "model":
            refuse_flat(tensors(whole, path), path)
        tree = {**tree, key: whole} if key else {**(as_dict(whole) or {}), **tree}
    document = Document(path, FORMAT.name, tree, tuple(reader.identities), folder=True)
    return with_beside(document, [], path, files)


def check_ranks(path: str, ranks: Sequence[tuple[int, int, str]]) -> None:
    """DamagedFile naming the first file that is missing."""
    have = {number for number, _, _ in ranks}
    wanted = max([1 + max(have), *(world for _, world, _ in ranks if world < 1 << 20)])
    missing = next((n for n in range(wanted) if n not in have), None)
    if missing is not None:
        name = re.sub(r"rank(_?)\d+", lambda m: f"rank{m[1]}{missing}", ranks[0][2])
        raise DamagedFile(f"{path}: {name} of {wanted} ranks is missing; copy it into the folder")


FORMAT = FolderFormat("torch rank files", claims, open_folder)
