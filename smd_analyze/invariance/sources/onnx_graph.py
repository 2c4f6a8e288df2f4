"""ONNX: the graph in the file, as a model in training. Exports that were optimised are not trusted.

An optimiser folds normalizations into the kernels before them and keeps the kernels' names: what is left computes the
same, but its weights are not those that were trained, and nothing is scale-invariant any more. The default of torch's
exporter does so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.base import Built, GraphSource
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import GraphHint, LazyTensor

NORM = "BatchNormalization"
STATISTICS = re.compile(r"(^|[./])(running_mean|moving_mean)(:\d+)?$")
FOLDED = re.compile(r"onnx::Conv(Transpose)?_\d+")
RESULT = re.compile(r"getitem(_\d+)?")  # torch names so what it takes of a norm's several results: a Conv has one
GENERATED = re.compile(r"^(onnx::|/|val_\d|c_lifted|_?(tensor_)?constant|_to_copy|const_|scalar_|\d+$)", re.IGNORECASE)
FLOATING = ("float16", "float32", "float64", "bfloat16")
OPEN = (8, 64, 224)  # lengths to try for axes that the file leaves open
BATCH = 4
AGAIN = (
    "export it in training mode with torch.onnx.export(…, training=TrainingMode.TRAINING, do_constant_folding=False, "
    "and optimize=False with dynamo=True), or give the model with --model"
)


def build(hint: GraphHint, tensors: Mapping[str, LazyTensor]) -> Built:
    """The module of the main graph; UsageError if it was optimised, or holds what cannot be followed."""
    from smd_analyze.invariance.sources.onnx_network import Network

    graph = hint.read()
    if not isinstance(graph, dict) or not graph.get("nodes"):
        raise UsageError(f"{hint.source}: holds no graph; give the model with --model")
    refuse_optimised(graph, tensors, hint.source)
    graph = {**graph, "nodes": with_frozen(graph["nodes"])}
    names = module_names(trained(graph, tensors))
    if not names:
        raise UsageError(f"{hint.source}: holds no weights under a name; {AGAIN}")
    error: UsageError | None = None
    for inputs in examples(graph):
        try:
            network = Network(graph, names, inputs, hint.source)
        except UsageError as problem:
            error = error or problem
            continue
        found = (tuple(inputs.values()), {})
        told = {n: own for n, own in names.items() if n in tensors and n != own}
        return Built(network, hint.source, found, told, findings=tuple(notes(graph, network.unknown, hint.source)))
    raise error or UsageError(f"{hint.source}: has no input of known type; give the model with --model")


def refuse_optimised(graph: Mapping[str, Any], tensors: Mapping[str, LazyTensor], where: str) -> None:
    """UsageError if normalizations of the checkpoints are not in the graph, or kernels bear the marks of folding."""
    nodes: Sequence[Mapping[str, Any]] = graph["nodes"]
    for node in nodes:
        kernel = node["inputs"][1] if node["op"].startswith("Conv") and len(node["inputs"]) > 1 else ""
        folded = FOLDED.fullmatch(kernel) or node["inputs"][2:] == [f"{kernel}_bias"]
        if kernel and (folded or RESULT.fullmatch(node["outputs"][0])):
            raise UsageError(
                f"{where}: is an optimised export: a BatchNorm was folded into {kernel}, so its weights are not those "
                f"that were trained; {AGAIN}"
            )
    present = {n for node in nodes if node["op"] == NORM for n in node["inputs"]}
    statistics = [n for n in tensors if STATISTICS.search(n)]
    missing = [n for n in statistics if not any(_same(n, own) for own in present)]
    count = sum(node["op"] == NORM for node in nodes)
    if missing and count < len(statistics):
        raise UsageError(
            f"{where}: is an optimised export: the checkpoints hold {len(statistics)} BatchNorms ({missing[0]} …), its "
            f"graph {count}; {AGAIN}"
        )


def with_frozen(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The nodes, those BatchNorms marked that are in inference mode although others of the graph are in training."""
    modes = [bool(n["attributes"].get("training_mode", 0)) for n in nodes if n["op"] == NORM]
    mixed = any(modes) and not all(modes)
    return [
        {**n, "attributes": {**n["attributes"], "frozen": 1}}
        if mixed and n["op"] == NORM and not n["attributes"].get("training_mode", 0)
        else n
        for n in nodes
    ]


def _same(run: str, own: str) -> bool:
    """One name, up to a prefix."""
    return run == own or run.endswith(f".{own}") or own.endswith(f".{run}")


def trained(graph: Mapping[str, Any], tensors: Mapping[str, LazyTensor]) -> list[str]:
    """Initializers that are parameters: floating-point, named, and used by more than a normalization's statistics."""
    known = {n.split(".", i)[-1] for n in tensors for i in range(n.count(".") + 1)}
    used = {
        n
        for node in graph["nodes"]
        for i, n in enumerate(node["inputs"])
        if not (node["op"] == NORM and i > 2) and not (node["op"] in ("Resize", "Upsample") and i > 0)
    }
    found = []
    for name, told in graph["initializers"].items():
        made = bool(GENERATED.search(name)) and "values" in told
        single = all(n == 1 for n in told["shape"])
        constant = made and (single or name not in known) or (not told["shape"] and name not in known)
        if told["dtype"] in FLOATING and name in used and not constant:
            found.append(name)
    return found


def module_names(names: Sequence[str]) -> dict[str, str]:
    """Names that modules may have: words of letters, digits and _, joined by dots, no parameter above another."""
    out: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        words = [re.sub(r"\W", "_", w) or "_" for w in re.split(r"[./]", name.strip("/")) if w]
        own = ".".join(words or ["weight"])
        while own in taken or any(t.startswith(f"{own}.") or own.startswith(f"{t}.") for t in taken):
            own += "_"
        taken.add(own)
        out[name] = own
    return out


def examples(graph: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Example inputs: as the file says, with guesses for open axes; then with a larger batch.

    A batch of one would leave a normalization over the batch nothing to normalize.
    """
    import torch

    inputs = [i for i in graph["inputs"] if i["shape"] is not None]
    kinds = {"float16": torch.float32, "float32": torch.float32, "float64": torch.float32, "bfloat16": torch.float32,
             "int64": torch.int64, "int32": torch.int32, "bool": torch.bool, "uint8": torch.uint8}  # fmt: skip
    if not inputs or len(inputs) < len(graph["inputs"]) or any(i["dtype"] not in kinds for i in inputs):
        return
    opened = any(not isinstance(n, int) for i in inputs for n in i["shape"][1:])
    for batch in (None, BATCH):
        for length in OPEN if opened else OPEN[:1]:
            made: dict[str, Any] = {}
            for told in inputs:
                shape = [n if isinstance(n, int) and n > 0 else length for n in told["shape"]]
                first = told["shape"][0] if shape else None
                if shape and (batch or not isinstance(first, int)):
                    shape[0] = BATCH if not isinstance(first, int) or first == 1 else first
                dtype = kinds[told["dtype"]]
                numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0))
                made[told["name"]] = numbers if dtype.is_floating_point else torch.ones(shape, dtype=dtype)
            yield made


def notes(graph: Mapping[str, Any], unknown: Mapping[str, Sequence[str]], where: str) -> Iterator[Finding]:
    """What a reader should know: normalizations read as in training, operators that are not known."""
    attributes = [n["attributes"] for n in graph["nodes"] if n["op"] == NORM]
    inferring = [a for a in attributes if not a.get("training_mode", 0) and not a.get("frozen", 0)]
    if inferring:
        words = f"{len(inferring)} BatchNorms do not tell whether they were in training; they are read as if they were"
        remedy = "If they were frozen, or dropout stood between a layer and its norm, give --model."
        yield Finding("read-as-training", "note", where, words, remedy)
    for reason, places in unknown.items():
        words = f"{reason} ({len(places)} of them) is not known: nothing is proved of what goes into it"
        yield Finding("layer-not-known", "note", places[0], words, "Weights before it may be invariant unproved.")


SOURCE = GraphSource("onnx", build)
