"""Ultralytics YOLO: the module in the file is the averaged copy (EMA) in half precision; `model` is empty."""

from __future__ import annotations

from dataclasses import replace

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import Framework, Parts
from smd_analyze.loading.tensors.trees import tensors


def matches(document: Document) -> bool:
    """A dict with train_args and either copy of the module."""
    tree = document.tree
    return isinstance(tree, dict) and "train_args" in tree and ("ema" in tree or "model" in tree)


def read_parts(document: Document) -> Parts:
    """The live module if it was saved, else its average, which is then said."""
    tree = document.tree
    live = tree.get("model") if tensors(tree.get("model")) else None
    parts = plain.read_parts(document)
    if live is not None:
        return replace(parts, weights=live, where="model", only="")
    return replace(parts, weights=tree.get("ema"), where="ema", variants={"ema": tree.get("ema")}, only="ema")


FRAMEWORK = Framework("ultralytics", matches, read_parts)
