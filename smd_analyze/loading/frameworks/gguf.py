"""GGUF: names of llama.cpp, axes as in torch once the shape is turned around; quantised tensors are left out."""

from __future__ import annotations

import re

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import Framework, Parts, told
from smd_analyze.loading.frameworks.layouts import OUT_FIRST, laid_out
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place
from smd_analyze.records.finding import Finding

FIXED = re.compile(r"(^|\.)(rope_freqs|rope_factors_(long|short))\.weight$")


def matches(document: Document) -> bool:
    """GGUF's own format."""
    return document.format == "gguf"


def read_parts(document: Document) -> Parts:
    """Weights in floating point; a finding names those that are quantised."""
    found = {n: p for n, p in document.tree.items() if type(p) is Place}
    quantised = [n for n, p in document.tree.items() if type(p) is Inert]
    findings: tuple[Finding, ...] = ()
    if quantised:
        shown = ", ".join(quantised[:3]) + (" …" if len(quantised) > 3 else "")
        words = f"{len(quantised)} quantised tensors are left out: {shown}"
        remedy = "Analyse the checkpoint that the file was converted from."
        findings = (Finding("quantised-tensors", "warning", document.path, words, remedy),)
    return Parts(
        laid_out({n: p for n, p in found.items() if not FIXED.search(n)}, axes),
        stated=plain.find_stated({"__metadata__": document.tree.get("__metadata__")}),
        buffers={n: p for n, p in found.items() if FIXED.search(n)},
        torch_like=False,
        told=told({}, findings=findings),
    )


def axes(name: str, place: Place, siblings: object) -> str | None:
    """As in torch; embeddings have no output unit."""
    return None if "embd" in name and len(place.shape) > 1 else OUT_FIRST.get(len(place.shape))


FRAMEWORK = Framework("gguf", matches, read_parts)
