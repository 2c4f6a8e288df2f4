"""torch.export's .pt2: the graph in its models/model.json, followed as data: only operations of aten are called.

Source: torch/_export/serde/schema.py. A program exported in eval mode is read as in training: batch normalizations use
the batch's statistics there, which is what decides on scale invariance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.base import Built, GraphSource
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import GraphHint, LazyTensor

Tree = Mapping[str, Any]
MODES = ("training", "train")
EVALUATED = (
    "exported in eval mode: it is read as in training, where batch normalizations use the batch's statistics; if the "
    "run froze them, the weights before them are not scale-invariant"
)


def build(hint: GraphHint, tensors: Mapping[str, LazyTensor]) -> Built:
    """The program as a module; UsageError, with the operation's name, if one is not of aten."""
    import torch

    from smd_analyze.invariance.sources.exported_nodes import Follower, Program, root_of

    told = hint.read()
    name = PurePosixPath(hint.source.partition(",")[0]).name
    try:
        described = told["program"]
        module = described["graph_module"]
        inputs = module["signature"]["input_specs"]
        metas = module["graph"]["tensor_values"]
        retrain = evaluated(module["graph"])

        def made(device: str) -> Program:
            root = type(root_of(module["graph"]), (Program,), {})()  # the class's name appears in the reasons
            Follower(root, module, told.get("weights", {}), keys_of(module), name, torch.device(device), retrain)
            if device != "meta":
                fill(root, tensors)
            return root

        network = made("meta")
        examples = tuple(example(spec["user_input"]["arg"], metas) for spec in inputs if "user_input" in spec)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        words = f"{type(problem).__name__}: {problem}"
        raise UsageError(f"{hint.source}: its graph cannot be followed ({words}); give the model with --model") from problem  # noqa: E501  # fmt: skip
    findings = (Finding("read-as-training", "note", hint.source, EVALUATED),) if retrain else ()
    constants = [b for b, _ in network.named_buffers() if b not in tensors]
    real = None if constants else lambda: made("cpu")  # numbers that are not in the run cannot be had
    label = f"the program in {name}" + ", read as in training" * retrain
    return Built(network, label, (examples, {}), findings=findings, real=real)


def example(arg: Tree, metas: Tree) -> Any:
    """An input as the program was exported with: zeros of its shape, or the value itself."""
    import torch

    from smd_analyze.invariance.sources.exported_nodes import dtype_of, sizes_of

    if "as_tensor" in arg:
        meta = metas[arg["as_tensor"]["name"]]
        return torch.zeros(sizes_of(meta), dtype=dtype_of(meta))
    kind, value = next(iter(arg.items()))
    return None if kind == "as_none" else value


def fill(network: Any, tensors: Mapping[str, LazyTensor]) -> None:
    """Give buffers the run's numbers (masks, position tables); parameters are whoever fills them in."""
    for name, buffer in network.named_buffers():
        buffer.copy_(tensors[name].load())


def evaluated(graph: Tree) -> bool:
    """Whether it was exported in eval mode: operations say so, and none says the contrary.

    Where some batch normalizations train and others do not, those are frozen on purpose and stay as they are.
    """
    flags = [a["arg"] for n in graph["nodes"] for a in n["inputs"] if a["name"] in MODES]
    told = [arg["as_bool"] for arg in flags if "as_bool" in arg]
    return not any(told) and (bool(told) or any("no_training" in n["target"] for n in graph["nodes"]))


def keys_of(module: Tree) -> list[tuple[str, int]]:
    """(name, number of tensors) of a mapping's entries, if the program returns one; else nothing."""
    for call in module.get("module_call_graph") or ():
        if call.get("fqn") == "" and call.get("signature"):
            spec = json.loads(call["signature"]["out_spec"])[1]
            words = list(strings(json.loads(spec["context"]))) if spec.get("context") else []
            children = spec["children_spec"]
            if words and len(words) == len(children):
                return [(w, leaves(c)) for w, c in zip(words, children, strict=True)]
    return []


def strings(context: Any) -> Iterator[str]:
    """The keys in a context, which is a list of them, or a list in a list."""
    if isinstance(context, str):
        yield context
    elif isinstance(context, list):
        for part in context:
            yield from strings(part)


def leaves(spec: Tree) -> int:
    """Number of values in a part of the result."""
    children: Sequence[Tree] = spec["children_spec"]
    return sum(leaves(c) for c in children) if children or spec.get("type") else 1


SOURCE = GraphSource("exported program", build)
