"""ONNX: weights and running statistics as the format sorted them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.base import Framework, Parts, Told
from smd_analyze.loading.frameworks.onnx_graph import read_graph
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import GraphHint


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
        graphs=(GraphHint("onnx", document.path, partial(read_graph, document.path)),),
        told=Told(findings=tuple(folded(tree.get("folded", ())))),
    )


def folded(kernels: Sequence[str]) -> Iterator[Finding]:
    """A finding if kernels hold the normalization that was behind them."""
    if kernels:
        words = (
            f"the exporter folded a BatchNorm into {'it' if len(kernels) == 1 else f'{len(kernels)} kernels'}: "
            "what is saved is kernel times gain, not the trained weight"
        )
        remedy = "Export in training mode without constant folding, or save the model's state_dict."
        yield Finding("folded-normalization", "warning", kernels[0], words, remedy)


FRAMEWORK = Framework("onnx", matches, read_parts)
