"""ONNX files as graphs: the same network through torch, ONNX and Keras; what is refused, and what is not known."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from invariance_runs import lazy, run_of, run_of_model
from torch import nn

from smd_analyze.errors import DamagedFile, UsageError
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.loading.frameworks.onnx_graph import read_graph
from smd_analyze.records.group import Groups
from smd_analyze.records.run import Checkpoint, GraphHint, Run

GOLDEN = Path(__file__).parents[2] / "golden" / "graphs"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv1, self.bn1 = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.short, self.head = nn.Conv2d(4, 6, 1, bias=False), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return self.head(torch.relu(y + self.short(x)).mean((2, 3)))


def statuses(found: Groups) -> dict[str, tuple[str, str, str]]:
    return {p.parameter: (p.status, p.granularity, p.evidence) for p in found.parameters}


@cache
def truth() -> dict[str, tuple[str, str, str]]:
    return statuses(find_groups(run_of_model(Net()), Net, torch.randn(4, 3, 8, 8)))


def onnx_hint(name: str) -> GraphHint:
    return GraphHint("onnx", name, lambda: read_graph(str(GOLDEN / name)))


def test_the_network_is_as_known_by_hand():
    found = truth()
    assert {n for n, v in found.items() if v == ("invariant", "unit", "proved")} == {
        "stem.weight", "conv1.weight", "conv2.weight",
    }  # fmt: skip
    assert found["conv1.bias"][0] == "dead"
    assert found["short.weight"][0] == found["head.weight"][0] == "not invariant"


@pytest.mark.parametrize("name", ["torchscript.onnx", "dynamo.onnx"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_onnx_gives_the_answer_of_torch(name: str, prefix: str):
    run = run_of_model(Net(), prefix=prefix)
    assert statuses(find_groups(run, onnx_hint(name))) == {f"{prefix}{n}": v for n, v in truth().items()}


@pytest.mark.parametrize("name", ["keras3.json", "keras2.json"])
def test_keras_gives_the_answer_of_torch(name: str):
    config = json.loads((GOLDEN / name).read_text())
    shapes, names = {}, {}
    for own, parameter in Net().named_parameters():
        layer, leaf = own.split(".")
        norm = layer.startswith("bn")
        title = {"weight": "gamma" if norm else "kernel", "bias": "beta" if norm else "bias"}[leaf]
        names[f"{layer}/{title}"] = own
        shape = tuple(parameter.shape)
        shapes[f"{layer}/{title}"] = (
            (*shape[2:], shape[1], shape[0])
            if len(shape) == 4
            else tuple(reversed(shape))
            if len(shape) == 2
            else shape
        )
    found = find_groups(run_of(shapes), GraphHint("keras config", name, lambda: config))
    assert {names[n]: v for n, v in statuses(found).items()} == truth()
    kernel = next(g for g in found.groups if g.name == "conv1")
    assert (kernel.units, kernel.members[0].axis) == (6, 3)


def test_an_optimised_export_is_refused():
    with pytest.raises(UsageError, match="optimised export: .*optimize=False"):
        find_groups(run_of_model(Net()), onnx_hint("optimised.onnx"))


def test_an_optimised_export_is_refused_if_it_is_the_checkpoint_itself():
    graph = onnx_hint("optimised.onnx").read()
    run = run_of({n: t["shape"] for n, t in graph["initializers"].items() if t["dtype"] == "float32"})
    with pytest.raises(UsageError, match="optimised export: a BatchNorm was folded into stem.weight"):
        find_groups(run, onnx_hint("optimised.onnx"))


def test_a_graph_without_the_norms_of_the_checkpoints_is_refused():
    graph = read_graph(str(GOLDEN / "torchscript.onnx"))
    gone = next(n for n in graph["nodes"] if n["op"] == "BatchNormalization")
    gone.update(op="Identity", inputs=gone["inputs"][:1], outputs=gone["outputs"][:1])
    with pytest.raises(UsageError, match="hold 3 BatchNorms .*its graph 2"):
        find_groups(run_of_model(Net()), GraphHint("onnx", "a.onnx", lambda: graph))


def test_a_norm_in_inference_among_norms_in_training_is_frozen():
    graph = read_graph(str(GOLDEN / "torchscript.onnx"))
    norms = [n for n in graph["nodes"] if n["op"] == "BatchNormalization"]
    norms[1]["attributes"]["training_mode"] = 0
    found = statuses(find_groups(run_of_model(Net()), GraphHint("onnx", "a.onnx", lambda: graph)))
    assert found["conv1.weight"][0] == found["conv1.bias"][0] == "not invariant"
    assert found["conv2.weight"][0] == "invariant"


def test_norms_exported_for_inference_are_read_as_in_training_and_that_is_said():
    found = find_groups(run_of_model(Net()), onnx_hint("dynamo.onnx"))
    assert "read-as-training" in {f.code for f in found.findings}
    assert "read-as-training" not in {
        f.code for f in find_groups(run_of_model(Net()), onnx_hint("torchscript.onnx")).findings
    }


def test_a_truncated_file_is_damaged(tmp_path: Path):
    whole = (GOLDEN / "torchscript.onnx").read_bytes()
    (tmp_path / "a.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFile):
        read_graph(str(tmp_path / "a.onnx"))


def test_a_file_that_is_the_checkpoint_too_describes_itself():
    tensors = {n: lazy(p.shape) for n, p in Net().named_parameters()}
    run = Run("r", (Checkpoint(0, "a.onnx", "onnx", "onnx", tensors),), "", "", graphs=(onnx_hint("torchscript.onnx"),))
    assert statuses(find_groups(run)) == truth()


def node(op: str, inputs: str, output: str, **attributes: Any) -> dict[str, Any]:
    """`inputs`: names with blanks between; "-" is one that is left out."""
    listed = ["" if n == "-" else n for n in inputs.split()]
    return {"op": op, "domain": "", "name": op, "inputs": listed, "outputs": output.split(), "attributes": attributes}


def number(value: Any) -> dict[str, Any]:
    found = np.asarray(value)
    return {"shape": list(found.shape), "dtype": str(found.dtype), "values": found}


def small(nodes: list[dict[str, Any]], weights: dict[str, tuple[int, ...]], **constants: Any) -> Groups:
    """Verdicts for a graph from x (batch of 1, 6) to y."""
    initializers = {n: {"shape": list(s), "dtype": "float32"} for n, s in weights.items()}
    graph = {
        "opset": 17, "functions": [], "nodes": nodes, "outputs": ["y"], "shapes": {"own": [1, 6]},
        "inputs": [{"name": "x", "shape": [1, 6], "dtype": "float32"}],
        "initializers": initializers | {n: number(v) for n, v in constants.items()},
    }  # fmt: skip
    return find_groups(run_of(weights), GraphHint("onnx", "small.onnx", lambda: graph))


NORM = {"n.weight": (6,), "n.bias": (6,)}
STATISTICS = {"m": np.zeros(6, np.float32), "v": np.ones(6, np.float32)}


def normed(source: str) -> list[dict[str, Any]]:
    return [node("BatchNormalization", f"{source} n.weight n.bias m v", "z"), node("Gemm", "z out.weight", "y")]


WEIGHTS = {"a.weight": (6, 6), "a.bias": (6,), "out.weight": (6, 3)}


def test_a_batch_of_one_leaves_a_norm_over_the_batch_something_to_normalize():
    nodes = [node("Gemm", "x a.weight a.bias", "h", transB=1), *normed("h")]
    found = statuses(small(nodes, WEIGHTS | NORM, **STATISTICS))
    assert found["a.weight"] == ("invariant", "unit", "proved")
    assert found["a.bias"][0] == "dead"
    assert found["n.weight"][0] == "not invariant"


def test_dropout_keeps_a_bias_alive():
    nodes = [node("Gemm", "x a.weight a.bias", "g", transB=1), node("Dropout", "g", "h"), *normed("h")]
    found = statuses(small(nodes, WEIGHTS | NORM, **STATISTICS))
    assert found["a.weight"][0] != "invariant"
    assert found["a.bias"][0] != "dead"


def test_a_layer_norm_in_single_steps():
    nodes = [
        node("Gemm", "x a.weight", "h", transB=1), node("ReduceMean", "h", "mean", axes=[-1]),
        node("Sub", "h mean", "c"), node("Pow", "c two", "s"), node("ReduceMean", "s", "var", axes=[-1]),
        node("Add", "var eps", "e"), node("Sqrt", "e", "d"), node("Div", "c d", "q"), node("Mul", "q n.weight", "z"),
        node("Gemm", "z out.weight", "y"),
    ]  # fmt: skip
    weights = {"a.weight": (6, 6), "n.weight": (6,), "out.weight": (6, 3)}
    found = statuses(small(nodes, weights, two=np.float32(2), eps=np.float32(1e-5)))
    assert found["a.weight"] == ("invariant", "whole", "proved")
    assert found["n.weight"][0] == "not invariant"


def test_an_operator_that_is_not_known_stops_scales_and_is_said_and_kills_nothing():
    nodes = [
        node("Gemm", "x a.weight a.bias", "h", transB=1), node("Mine", "h", "own"),
        node("LayerNormalization", "own n.weight n.bias", "z"), node("Gemm", "z out.weight", "y"),
    ]  # fmt: skip
    made = small(nodes, WEIGHTS | NORM)
    found = statuses(made)
    assert found["a.weight"][0] == found["a.bias"][0] == "not invariant"
    assert "layer-not-known" in {f.code for f in made.findings}


def test_an_operator_whose_result_has_no_known_shape_is_refused():
    nodes = [node("Gemm", "x a.weight", "h", transB=1), node("Mine", "h", "y2"), node("Gemm", "y2 out.weight", "y")]
    with pytest.raises(UsageError, match="Mine does to scales is not known"):
        small(nodes, WEIGHTS)


def test_shapes_that_are_computed():
    nodes = [
        node("Gemm", "x a.weight", "g", transB=1), node("Shape", "g", "s"), node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n first", "n1"), node("Concat", "n1 tail", "wanted", axis=0),
        node("Reshape", "g wanted", "split"), node("ReduceL2", "split last", "size", keepdims=1),
        node("Div", "split size", "unit"), node("Flatten", "unit", "z"), node("Gemm", "z out.weight", "y"),
    ]  # fmt: skip
    found = small(
        nodes, {"a.weight": (6, 6), "out.weight": (6, 3)}, zero=np.int64(0), first=np.array([0]),
        tail=np.array([2, 3]), last=np.array([-1]),
    )  # fmt: skip
    assert statuses(found)["a.weight"] == ("invariant", "block", "proved")
    assert next(g for g in found.groups if g.name == "a").units == 2
