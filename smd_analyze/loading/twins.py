"""The optimizer's state in a file of its own beside the weights: MLX, MindSpore, Paddle, MXNet and Caffe do so.

The pair becomes one document: the weights' tree with the other's under "__optimizer__".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from smd_analyze.errors import SmdError
from smd_analyze.loading.folders import moved
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.formats.registry import open_document
from smd_analyze.loading.sources import open_source
from smd_analyze.records.finding import Finding

OPTIMIZER = "__optimizer__"
PAIRS = (
    (r"(.*[_\-.])(?:model|weights)\.(safetensors|npz)", r"\1optimizer.\2"),
    (r"(?!opt)(.+)-(\d+_\d+)\.ckpt", r"opt-\2.ckpt"),
    (r"(.*)\.pdparams()", r"\1.pdopt\2"),
    (r"(.*)\.params()", r"\1.states\2"),
    (r"(.*)\.caffemodel()", r"\1.solverstate\2"),
)


def twin_of(name: str, files: Sequence[str]) -> str:
    """The file among `files` that holds the optimizer's state for the weights in `name`, or ""."""
    for pattern, other in PAIRS:
        found = re.fullmatch(pattern, name)
        if found and (twin := found.expand(other)) in files:
            return twin
    return ""


def with_twin(document: Document, twin: str) -> tuple[Document, list[Finding]]:
    """Both files as one document; weights alone, with a finding, if the other cannot be read."""
    if not isinstance(document.tree, dict):
        return document, []
    try:
        with open_source(twin) as source:
            other = open_document(source)
    except (SmdError, OSError) as problem:
        words = str(problem).removeprefix(f"{twin}: ")
        return document, [Finding("unreadable-file", "warning", twin, words, "Its settings are not used.")]
    tree = {**document.tree, OPTIMIZER: moved(other.tree, len(document.files))}
    return replace(document, tree=tree, files=(*document.files, *other.files), fingerprint=None), []
