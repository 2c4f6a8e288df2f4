"""ONNX: weights and running statistics as the format sorted them."""

from __future__ import annotations

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import Framework, Parts


def matches(document: Document) -> bool:
    """ONNX' own format."""
    return document.format == "onnx"


def read_parts(document: Document) -> Parts:
    """No optimizer, no step but what the metadata say."""
    tree = document.tree
    return Parts(
        tree["weights"],
        facts=plain.facts_inside(tree, (), ()),
        stated=plain.find_stated({"__metadata__": tree["__metadata__"]}),
        buffers=tree["buffers"],
        torch_like=False,
    )


FRAMEWORK = Framework("onnx", matches, read_parts)
