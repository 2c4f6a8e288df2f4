"""Weights that are in a file but not analysed: quantised, sparse, or of a class of their own. Said, not dropped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smd_analyze.loading.files.findings import some
from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place
from smd_analyze.records.finding import Finding

INTEGERS = frozenset({"int8", "uint8", "qint8", "quint8", "int32", "qint32"})
DEEPEST = 6


def unread_findings(weights: Any, found: Mapping[str, Place], path: str) -> list[Finding]:
    """One finding for tensors that could not be read, one for weights that are packed integers."""
    out: list[Finding] = []
    opaque = list(opaque_tensors(weights))
    if opaque:
        kinds = sorted({kind for _, kind in opaque})
        words = f"{some([n for n, _ in opaque])}: {', '.join(kinds)}, not read"
        remedy = "Save them as plain dense tensors to have them analysed."
        out.append(Finding("tensor-not-read", "warning", path, words, remedy))
    packed = [n for n, p in found.items() if p.dtype in INTEGERS and len(p.shape) > 1 and n.endswith("weight")]
    if packed:
        kinds = sorted({found[n].dtype for n in packed})
        words = f"{some(packed)}: quantised weights ({', '.join(kinds)}), listed among the buffers and not analysed"
        out.append(Finding("quantised-weights", "note", path, words, "Analyse the run's unquantised checkpoints."))
    odd = [n for n, p in found.items() if p.dtype.startswith("complex") and p.dtype in FLOATING]
    if odd:
        out.append(Finding("complex-weights", "note", path, f"{some(odd)}: complex numbers"))
    return out


def opaque_tensors(node: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """(name, what it is) of tensors that are no Places."""
    if type(node) is Inert:
        short = node.name.rpartition(" ")[2]
        if "_rebuild_sparse" in short:
            yield name, "sparse tensor"
            return
        if node.name.startswith("tensor of dtype"):
            yield name, node.name
            return
        if "_rebuild" in short or node.name.startswith("a part of a "):  # a wrapper, such as torchao's quantised ones
            kind = next((str(a).rpartition(" ")[2] for a in node.args if isinstance(a, str) and " " in a), short)
            yield name, f"tensor of class {kind.rpartition('.')[2]}"
            return
        node = node.attributes
    if type(node) is dict and depth < DEEPEST:
        for key, value in node.items():
            if type(value) in (dict, Inert) and isinstance(key, str):
                inner = name if key in ("_parameters", "_buffers", "_modules") else f"{name}.{key}".lstrip(".")
                yield from opaque_tensors(value, inner, depth + 1)
