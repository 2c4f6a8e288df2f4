"""Hugging Face's config.json: the architecture it names, built by transformers without weights (on the meta device).

Only classes of transformers itself are used: code that a repository brings along (auto_map) is never fetched or run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.base import Built, GraphSource
from smd_analyze.records.run import GraphHint, LazyTensor


def build(hint: GraphHint, tensors: Mapping[str, LazyTensor]) -> Built:
    """The model of `architectures` and `model_type`; UsageError if this transformers has no such class."""
    import torch
    import transformers  # pyright: ignore[reportMissingImports]

    described = hint.read()
    if not isinstance(described, dict):
        raise UsageError(f"{hint.source}: is no JSON object; give the model with --model")
    kind = class_of(transformers, described, hint.source)
    settings = {
        k: v for k, v in described.items() if k not in ("auto_map", "torch_dtype", "dtype", "quantization_config")
    }
    try:
        config = kind.config_class.from_dict(settings)
        config._attn_implementation = "eager"  # its operations are all in the graph
        with torch.device("meta"):
            network = kind(config)
    except Exception as problem:  # transformers raises whatever its code meets in a config
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise UsageError(
            f"{hint.source}: {kind.__name__} cannot be built from it ({reason}); give the model with --model"
        ) from problem
    return Built(network, f"{kind.__name__} of {hint.source}")


def class_of(transformers: Any, described: Mapping[str, Any], where: str) -> Any:
    """The model class that the config names, if it is one of transformers' own."""
    named = described.get("architectures")
    for name in named if isinstance(named, list) else ():
        kind = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
        if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
            return kind
    listed = ", ".join(str(n) for n in named) if isinstance(named, list) and named else "no architecture"
    raise UsageError(
        f"{where}: names {listed}, which transformers {transformers.__version__} does not have "
        f"(model_type {described.get('model_type')!r}); give the model with --model"
    )


SOURCE = GraphSource("huggingface config", build, requires=("transformers",), extra="transformers")
