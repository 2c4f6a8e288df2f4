"""Keras' configuration as a graph: what it proves, per layer class, and what it refuses. No Keras, no files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from smd_analyze.invariance.grouping import find_groups
from smd_analyze.records.group import Groups
from smd_analyze.records.run import Checkpoint, GraphHint, LazyTensor, Run

Shape = tuple[int, ...]
LAYOUTS = {4: "HWIO", 2: "IO"}


def layer(kind: str, name: str, *sources: str | list[str], **config: Any) -> dict[str, Any]:
    """An entry of Keras 3's Functional configuration; a list of sources goes in as one argument."""

    def tensor(source: str) -> dict[str, Any]:
        shape = [None, 8, 8, 4] if source == "own" else []
        told = {"keras_history": [source, 0, 0], **({"shape": shape} if shape else {})}
        return {"class_name": "__keras_tensor__", "config": told}

    args = [[tensor(s) for s in source] if isinstance(source, list) else tensor(source) for source in sources]
    calls = [{"args": args, "kwargs": {}}] if sources else []
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": calls}


def model(output: str, *layers: dict[str, Any], shape: tuple[Any, ...] = (None, 8, 8, 3)) -> dict[str, Any]:
    entries = [layer("InputLayer", "x", batch_shape=list(shape), dtype="float32"), *layers]
    ends = {"input_layers": ["x", 0, 0], "output_layers": [output, 0, 0]}
    return {"class_name": "Functional", "config": {"layers": entries, **ends}}


def groups(config: dict[str, Any], shapes: dict[str, Shape]) -> Groups:
    tensors = {
        n: LazyTensor(s, "float32", lambda s=s: np.zeros(s, np.float32), LAYOUTS.get(len(s))) for n, s in shapes.items()
    }
    hint = GraphHint("keras config", "a.keras, config.json", lambda: config)
    return find_groups(Run("r", (Checkpoint(1, "a.keras", "f", "keras", tensors),), "", "", graphs=(hint,)))


def verdicts(config: dict[str, Any], shapes: dict[str, Shape]) -> dict[str, tuple[str, str, str]]:
    return {p.parameter: (p.status, p.granularity, p.evidence) for p in groups(config, shapes).parameters}


PROVED = ("invariant", "unit", "proved")
NORM = {"gamma": (4,), "beta": (4,)}


def shapes(**layers: dict[str, Shape]) -> dict[str, Shape]:
    return {f"{name}/{n}": s for name, own in layers.items() for n, s in own.items()}


HEAD = (layer("GlobalAveragePooling2D", "pool", "end"), layer("Dense", "head", "pool", activation="softmax"))


def test_a_convolution_before_its_norm_whatever_the_names_and_the_order():
    config = model(
        "head", layer("BatchNormalization", "zeta", "alpha", axis=-1), layer("Conv2D", "alpha", "x", padding="same"),
        layer("ReLU", "end", "zeta"), *HEAD,
    )  # fmt: skip
    made = groups(config, shapes(zeta=NORM, alpha={"kernel": (3, 3, 3, 4), "bias": (4,)}, head={"kernel": (4, 2)}))
    found = {p.parameter: (p.status, p.granularity, p.evidence) for p in made.parameters}
    assert found["alpha/kernel"] == PROVED
    assert found["alpha/bias"][0] == "dead"
    assert found["head/kernel"][0] == "not invariant"
    group = next(g for g in made.groups if g.name == "alpha")
    assert (group.units, group.members[0].axis) == (4, 3)


def test_a_sum_before_the_norm_ties_the_branches():
    config = model(
        "head", layer("Conv2D", "a", "x", padding="same"), layer("Conv2D", "b", "x", padding="same"),
        layer("Add", "sum", ["a", "b"]), layer("BatchNormalization", "end", "sum"), *HEAD,
    )  # fmt: skip
    kernel = {"kernel": (3, 3, 3, 4)}
    found = verdicts(config, shapes(a=kernel, b=kernel, end=NORM, head={"kernel": (4, 2)}))
    assert found["a/kernel"][0] == found["b/kernel"][0] == "jointly invariant"


def test_a_frozen_norm_divides_nothing_out():
    config = model(
        "head", layer("Conv2D", "a", "x"), layer("BatchNormalization", "end", "a", trainable=False), *HEAD
    )  # fmt: skip
    found = verdicts(config, shapes(a={"kernel": (3, 3, 3, 4)}, end=NORM, head={"kernel": (4, 2)}))
    assert found["a/kernel"][0] == "not invariant"


@pytest.mark.parametrize(
    ("kind", "config", "own", "size"),
    [
        ("Conv2D", {"strides": [2, 2], "padding": "same"}, {"kernel": (3, 3, 3, 4)}, 4),
        ("Conv2DTranspose", {"strides": [2, 2], "padding": "same"}, {"kernel": (3, 3, 4, 3)}, 4),
        ("DepthwiseConv2D", {"padding": "same"}, {"depthwise_kernel": (3, 3, 3, 1)}, 3),
        ("SeparableConv2D", {}, {"depthwise_kernel": (3, 3, 3, 1), "pointwise_kernel": (1, 1, 3, 4)}, 4),
        ("Dense", {}, {"kernel": (3, 4)}, 4),
    ],
)
def test_classes_of_kernels(kind: str, config: dict[str, Any], own: dict[str, Shape], size: int):
    told = model("head", layer(kind, "a", "x", **config), layer("BatchNormalization", "end", "a"), *HEAD)
    norm = {"gamma": (size,), "beta": (size,)}
    found = verdicts(told, shapes(a=own, end=norm, head={"kernel": (size, 2)}))
    last = list(own)[-1]
    assert found[f"a/{last}"] == PROVED


def test_a_layer_that_is_not_known_stops_what_goes_into_it_and_nothing_else():
    config = model(
        "head", layer("Conv2D", "a", "x", padding="same"), layer("BatchNormalization", "an", "a"),
        layer("Conv2D", "b", "an", padding="same"), layer("Mine", "own", "b"),
        layer("Conv2D", "c", "own", padding="same"), layer("BatchNormalization", "end", "c"), *HEAD,
    )  # fmt: skip
    first, other = {"kernel": (3, 3, 3, 4)}, {"kernel": (3, 3, 4, 4)}
    made = groups(
        config, shapes(a=first, an=NORM, b=other, own={"w": (4, 4)}, c=other, end=NORM, head={"kernel": (4, 2)})
    )
    found = {p.parameter: (p.status, p.granularity, p.evidence) for p in made.parameters}
    assert found["a/kernel"] == found["c/kernel"] == PROVED
    assert found["b/kernel"][0] == "not invariant"
    assert found["own/w"][2] == "guessed"
    assert "layer-not-known" in {f.code for f in made.findings}


def test_sequential_nested_models_and_keras_2s_calls():
    inner = {
        "name": "block",
        "layers": [layer("Dense", "d"), layer("BatchNormalization", "n"), layer("ReLU", "r")],
    }
    told = {
        "class_name": "Functional",
        "config": {
            "layers": [
                {"class_name": "InputLayer", "name": "x", "config": {"name": "x", "batch_input_shape": [None, 5]},
                 "inbound_nodes": []},
                {"class_name": "Sequential", "name": "block", "config": inner, "inbound_nodes": [[["x", 0, 0, {}]]]},
                {"class_name": "Dense", "name": "head", "config": {"name": "head"},
                 "inbound_nodes": [[["block", 0, 0, {}]]]},
            ],
            "input_layers": [["x", 0, 0]],
            "output_layers": [["head", 0, 0]],
        },
    }  # fmt: skip
    found = verdicts(
        told, {"block/d/kernel": (5, 4), "block/n/gamma": (4,), "block/n/beta": (4,), "head/kernel": (4, 2)}
    )
    assert found["block/d/kernel"] == PROVED


@pytest.mark.parametrize(
    "config",
    [
        model("end", layer("MyLayer", "end", "x")),
        model("end", layer("Dense", "end", "x", activation="my_activation")),
        {"class_name": "MyModel", "config": {}},
        model("nowhere", layer("ReLU", "end", "x")),
        {"class_name": "Functional", "config": {"layers": [{"class_name": "Dense"}]}},
    ],
)
def test_what_is_not_known_is_a_note_and_names_decide(config: dict[str, Any]):
    made = groups(config, {"end/kernel": (3, 4), "end/bias": (4,)})
    assert {p.evidence for p in made.parameters} == {"guessed"}
    assert [f.code for f in made.findings] == ["graph-not-used"]
