"""TorchScript archives: their code is text, a small part of Python, and is followed as data, never run as Python.

Only operations of aten are called, by name, and the functions that the archive holds. Control flow must be decided by
numbers that are known (settings, shapes). An archive saved in eval mode is read as in training.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.base import Built, GraphSource
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import GraphHint, LazyTensor

if TYPE_CHECKING:
    from torch import nn

Tree = Mapping[str, Any]
FLAGS = {"batch_norm": 5, "dropout": 2, "dropout_": 2, "feature_dropout": 2, "alpha_dropout": 2}
EVALUATED = (
    "saved in eval mode: it is read as in training, where batch normalizations use the batch's statistics; if the run "
    "froze them, the weights before them are not scale-invariant"
)


def build(hint: GraphHint, tensors: Mapping[str, LazyTensor]) -> Built:
    """The archive's module; UsageError where its code does what is not followed, or was frozen."""
    from smd_analyze.invariance.sources.torchscript_code import Archive, Unfollowed, tensor_of

    told = hint.read()
    name = PurePosixPath(hint.source).name
    try:
        parsed = {file: ast.parse(text) for file, text in told["code"].items()}
        retrain = evaluated(told["root"], parsed.values())

        def made(device: str) -> nn.Module:
            return Archive(told["root"], parsed, told["constants"], retrain).network(device)

        network = made("meta")
        inputs = tuple(tensor_of(v, "cpu") for v in told["inputs"])
    except (Unfollowed, KeyError, TypeError, ValueError, AttributeError, IndexError, SyntaxError, RecursionError, MemoryError) as problem:  # noqa: E501  # fmt: skip
        words = str(problem) if isinstance(problem, Unfollowed) else f"{type(problem).__name__}: {problem}"
        raise UsageError(f"{hint.source}: its code cannot be followed ({words}); give the model with --model") from problem  # noqa: E501  # fmt: skip
    if not any(True for _ in network.parameters()):
        raise UsageError(
            f"{hint.source}: holds no parameters: a frozen archive, whose numbers are no longer those that were "
            "trained; give the model with --model"
        )
    findings = (Finding("read-as-training", "note", hint.source, EVALUATED),) if retrain else ()
    label = f"the TorchScript code in {name}" + ", read as in training" * retrain
    buffers = [name for name, _ in network.named_buffers()]
    whole = not any(isinstance(c, dict) for c in told["constants"]) and all(b in tensors for b in buffers)
    real = (lambda: filled(made("cpu"), tensors)) if whole else None  # numbers that are not in the run cannot be had
    return Built(network, label, (inputs, {}) if inputs else None, findings=findings, real=real)


def filled(network: nn.Module, tensors: Mapping[str, LazyTensor]) -> nn.Module:
    """The module with the run's numbers in its buffers."""
    for name, buffer in network.named_buffers():
        buffer.copy_(tensors[name].load())
    return network


def evaluated(root: Tree, code: Any) -> bool:
    """Whether it was saved in eval mode: the root says so, and no flag in a traced module's code the contrary."""
    flags = (flag for tree in code for flag in literal_flags(tree))
    return root["fields"].get("training") is False and not any(flags)


def literal_flags(tree: ast.AST) -> Iterator[bool]:
    """What a trace wrote down as the mode of normalizations and dropout."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            place = FLAGS.get(node.func.attr)
            if place is not None and place < len(node.args):
                found = node.args[place]
                if isinstance(found, ast.Constant) and isinstance(found.value, bool):
                    yield found.value


SOURCE = GraphSource("torchscript", build)
