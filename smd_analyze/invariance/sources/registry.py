"""The graph sources in order of trust, and the first of a run's descriptions that yields a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec

from smd_analyze.errors import MissingLibrary
from smd_analyze.invariance.sources import (
    exported_program,
    huggingface_config,
    keras_config,
    module_tree,
    onnx_graph,
    torchscript,
)
from smd_analyze.invariance.sources.base import Built, GraphSource
from smd_analyze.records.run import GraphHint, LazyTensor

SOURCES: tuple[GraphSource, ...] = (
    exported_program.SOURCE,
    torchscript.SOURCE,
    huggingface_config.SOURCE,
    keras_config.SOURCE,
    onnx_graph.SOURCE,
    module_tree.SOURCE,
)


def known(hints: Sequence[GraphHint]) -> Iterator[tuple[GraphSource, GraphHint]]:
    """The descriptions that a source understands, the most trusted first."""
    for source in SOURCES:
        for hint in hints:
            if hint.kind == source.kind:
                yield source, hint


def build(source: GraphSource, hint: GraphHint, tensors: Mapping[str, LazyTensor]) -> Built:
    """The model of a description; MissingLibrary with the pip line, UsageError if it cannot be built."""
    missing = [name for name in source.requires if find_spec(name) is None]
    if missing:
        raise MissingLibrary(
            f"{hint.source}: reading the model's graph from it needs {missing[0]}: "
            f"pip install 'smd-analyze[{source.extra}]'"
        )
    return source.build(hint, tensors)
