"""Keras' configuration of a Functional or Sequential model (config.json, model_config): which layer feeds which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.base import Built, GraphSource
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import GraphHint, LazyTensor

if TYPE_CHECKING:
    from torch import nn

GUESSED = 16  # length of an axis that the model leaves open
MODELS = ("Functional", "Model", "Sequential")


def build(hint: GraphHint, tensors: Mapping[str, LazyTensor]) -> Built:
    """The model, with the run's shapes; UsageError for layers that are not known or models without a graph."""
    described = hint.read()
    if not isinstance(described, dict):
        raise UsageError(f"{hint.source}: is no configuration of Keras'; give the model with --model")
    names: dict[str, str] = {}
    transposed: dict[str, tuple[int, ...]] = {}
    unknown: dict[str, str] = {}
    try:
        network = model_of(described, tensors, "", hint.source, names, transposed, unknown)
        inputs = tuple(example(node) for node in inputs_of(described))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        words = f"{type(problem).__name__} {problem}"
        raise UsageError(f"{hint.source}: cannot be followed ({words}); give the model with --model") from problem
    if not names:
        raise UsageError(f"{hint.source}: none of its layers is known and has weights; give the model with --model")
    return Built(network, f"the model in {hint.source}", (inputs, {}), names, transposed, tuple(notes(unknown)))


def notes(unknown: Mapping[str, str]) -> Iterator[Finding]:
    """A note per class of layers that is not known."""
    for kind in dict.fromkeys(unknown.values()):
        found = [name for name, other in unknown.items() if other == kind]
        words = f"layers of class {kind} are not known ({len(found)} of them): nothing is proved of what goes into them"
        yield Finding("layer-not-known", "note", found[0], words, "Their own weights are judged by names.")


def model_of(
    described: Mapping[str, Any],
    tensors: Mapping[str, LazyTensor],
    prefix: str,
    where: str,
    names: dict[str, str],
    transposed: dict[str, tuple[int, ...]],
    unknown: dict[str, str],
    path: str = "",
) -> nn.Module:
    """A module for a model's configuration. `prefix` stands before its layers' names in the run, `path` in the module.

    `names` and `transposed` are filled in, as in Built; `unknown`: layers that are not known → their class.
    """
    from smd_analyze.invariance.sources.keras_attention import NESTED
    from smd_analyze.invariance.sources.keras_layers import KNOWN, Layer, Opaque
    from smd_analyze.invariance.sources.keras_network import Network

    if described.get("class_name") not in MODELS or not layers_of(described):
        kind = described.get("class_name")
        raise UsageError(f"{where}: a {kind} of its own class tells no graph; give the model with --model")
    made: dict[str, nn.Module] = {}
    results = shapes_of_results(described)
    for node in layers_of(described):
        kind, config = str(node["class_name"]).rpartition(">")[2], node["config"]
        name = config["name"] if isinstance(config, dict) else node["name"]
        title = name.replace(".", "_")
        if kind in MODELS:
            inner = {"class_name": kind, "config": config}
            made[name] = model_of(
                inner, tensors, f"{prefix}{name}/", where, names, transposed, unknown, f"{path}{title}."
            )
            continue
        if kind not in KNOWN:
            if not results:
                raise UsageError(f"{where}: layers of class {kind} are not known; give the model with --model")
            made[name], unknown[f"{prefix}{name}"] = type(kind, (Opaque,), {})(results.get(name, [1])), kind
            continue
        own = variables(tensors, prefix, name, kind in NESTED)
        titled = type(kind, (Layer,), {})  # the class's name appears in the reasons
        layer = titled(kind, config, {leaf: tensors[full].shape for leaf, full in own.items()}, f"{where}: {name}")
        for leaf, (held, order) in layer.held.items():
            names[own[leaf]] = f"{path}{title}.{held}"
            if order is not None:
                transposed[f"{path}{title}.{held}"] = order
        made[name] = layer
    return Network(made, described)


def variables(tensors: Mapping[str, LazyTensor], prefix: str, layer: str, nested: bool) -> dict[str, str]:
    """Variable → its name in the run, of one layer: the model around it may be left out of the names.

    `nested`: its variables lie in layers of its own.
    """
    for stem in dict.fromkeys((f"{prefix}{layer}/", f"{layer}/")):
        found = {n.removeprefix(stem).partition(":")[0]: n for n in tensors if n.startswith(stem)}
        found = {leaf: n for leaf, n in found.items() if nested or "/" not in leaf}
        if found:
            return found
    return {}


def shapes_of_results(described: Mapping[str, Any]) -> dict[str, list[int]]:
    """Layer → the shape of its result without the batch, as Keras 3 tells it to those that use it.

    A layer that is missing although others are there is used by none: it is an output.
    """
    found: dict[str, list[int]] = {}

    def look(node: Any) -> None:
        if isinstance(node, dict) and node.get("class_name") == "__keras_tensor__":
            told = node["config"]
            shape = told.get("shape")
            if isinstance(shape, list):
                found[str(told["keras_history"][0])] = [GUESSED if n is None else int(n) for n in shape[1:]]
        elif isinstance(node, dict | list):
            for part in node.values() if isinstance(node, dict) else node:
                look(part)

    layers = layers_of(described)
    for node in layers:
        look(node.get("inbound_nodes"))
    for node, after in pairwise(layers if described.get("class_name") == "Sequential" else ()):
        told = (after.get("build_config") or {}).get("input_shape")
        if isinstance(told, list) and all(isinstance(n, int | None) for n in told):
            found[str(node["config"]["name"])] = [GUESSED if n is None else int(n) for n in told[1:]]
    return found


def layers_of(described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The layers' entries, in the configuration's order."""
    inner = described.get("config")
    found = inner.get("layers") if isinstance(inner, dict) else inner
    return found if isinstance(found, list) else []


def inputs_of(described: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Configurations that tell the shapes of the model's inputs."""
    layers = layers_of(described)
    found = [n["config"] for n in layers if n["class_name"] == "InputLayer"]
    if not found and layers:
        head = layers[0]
        nested = layers_of(head) if head["class_name"] in MODELS else []
        found = list(inputs_of(head)) if nested else [head["config"]]
        built = described.get("build_config") or head.get("build_config") or {}
        if not nested and not any(k in found[0] for k in ("batch_input_shape", "batch_shape")) and built:
            found = [{**found[0], "batch_shape": built["input_shape"]}]
    yield from found


def example(config: Mapping[str, Any]) -> Any:
    """A tensor of the input's shape."""
    import torch

    shape: Sequence[Any] = config.get("batch_shape") or config["batch_input_shape"]
    sizes = [4, *(GUESSED if n is None else int(n) for n in shape[1:])]
    dtype = config.get("dtype", "float32")
    if isinstance(dtype, str) and dtype.startswith(("int", "uint")):
        return torch.zeros(sizes, dtype=torch.long)
    return torch.randn(sizes, generator=torch.Generator().manual_seed(0))


SOURCE = GraphSource("keras config", build)
