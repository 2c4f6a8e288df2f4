"""Keras' layers as modules: what randomness, frozen norms and unknown layers do, attention, einsum, recurrent cells."""

from __future__ import annotations

from typing import Any

import pytest
from test_keras_graph import HEAD, groups, layer, model, shapes, verdicts

CONV = {"kernel": (3, 3, 3, 4), "bias": (4,)}
NORM = {"gamma": (4,), "beta": (4,)}
HEADS = {"head": {"kernel": (4, 2)}}


def chain(between: dict[str, Any], norm: str = "BatchNormalization", **config: Any) -> dict[str, tuple[str, str, str]]:
    """Convolution with bias → the layer → a norm → head."""
    told = model(
        "head", layer("Conv2D", "a", "x", padding="same"), between, layer(norm, "end", between["name"], **config), *HEAD
    )
    return verdicts(told, shapes(a=CONV, end=NORM, **HEADS))


def test_dropout_before_the_norm_keeps_the_bias_alive():
    found = chain(layer("Dropout", "mid", "a", rate=0.1))
    assert found["a/bias"][0] != "dead"
    assert found["a/kernel"][0] != "invariant"


def test_dropout_of_rate_zero_does_nothing():
    found = chain(layer("Dropout", "mid", "a", rate=0))
    assert found["a/bias"][0] == "dead"
    assert found["a/kernel"][0] == "invariant"


def test_noise_of_fixed_size_measures_the_scale():
    assert chain(layer("GaussianNoise", "mid", "a", stddev=0.1))["a/kernel"][0] == "not invariant"


@pytest.mark.parametrize("norm", ["BatchNormalization", "LayerNormalization"])
def test_what_goes_into_an_unknown_layer_is_not_dead(norm: str):
    config = model(
        "head", layer("Conv2D", "a", "x", padding="same"), layer("Mine", "own", "a"),
        layer(norm, "end", "own"), *HEAD,
    )  # fmt: skip
    found = verdicts(config, shapes(a=CONV, end=NORM, **HEADS))
    assert found["a/kernel"][0] == found["a/bias"][0] == "not invariant"


def test_a_frozen_norm_without_a_shift_of_its_own_still_shifts():
    """It subtracts a saved mean: the norm behind it does not see what is before it alone."""
    between = layer("BatchNormalization", "mid", "a", trainable=False, center=False, scale=False)
    config = model(
        "head", layer("Conv2D", "a", "x", padding="same"), between, layer("ReLU", "r", "mid"),
        layer("BatchNormalization", "end", "r"), *HEAD,
    )  # fmt: skip
    found = verdicts(config, shapes(a={"kernel": (3, 3, 3, 4)}, end=NORM, **HEADS))
    assert found["a/kernel"][0] == "not invariant"


ATTENTION = {
    **{f"{part}/kernel": (6, 2, 4) for part in ("query", "key", "value")},
    **{f"{part}/bias": (2, 4) for part in ("query", "key", "value")},
    "attention_output/kernel": (2, 4, 6), "attention_output/bias": (6,),
}  # fmt: skip


def told(name: str) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}


@pytest.mark.parametrize("named", [False, True])
def test_attention_its_key_bias_is_dead(named: bool):
    attention = layer("MultiHeadAttention", "mha", "x", "x", num_heads=2, key_dim=4)
    if named:
        attention["inbound_nodes"] = [{"args": [told("x")], "kwargs": {"key": told("x"), "value": told("x")}}]
    config = model("head", attention, layer("Dense", "head", "mha"), shape=(None, 5, 6))
    found = verdicts(config, shapes(mha=ATTENTION, head={"kernel": (6, 2)}))
    dead = {n for n, v in found.items() if v[0] == "dead"}
    assert dead == {"mha/key/bias"}
    assert {v[2] for v in found.values()} <= {"proved", "not proved"}


def test_einsum_and_a_norm_per_head():
    config = model(
        "head", layer("EinsumDense", "q", "x", equation="...c,cde->...de"),
        layer("UnitNormalization", "u", "q", axis=-1), layer("Flatten", "f", "u"), layer("Dense", "head", "f"),
        shape=(None, 5, 6),
    )  # fmt: skip
    made = groups(config, {"q/kernel": (6, 2, 4), "head/kernel": (40, 2)})
    assert {p.parameter: p.status for p in made.parameters}["q/kernel"] == "invariant"
    group = next(g for g in made.groups if g.name == "q")
    assert (group.units, group.members[0].axis) == (2, 1)


def test_recurrent_cells_let_no_scale_through_and_kill_nothing():
    inner = {"class_name": "LSTM", "config": {"name": "lstm", "units": 4, "return_sequences": True}}
    config = model(
        "head", layer("Dense", "pre", "x"), layer("Bidirectional", "bi", "pre", layer=inner, merge_mode="concat"),
        layer("LayerNormalization", "end", "bi"), layer("GRU", "gru", "end", units=3), layer("Dense", "head", "gru"),
        shape=(None, 5, 6),
    )  # fmt: skip
    cell = {"kernel": (7, 16), "recurrent_kernel": (4, 16), "bias": (16,)}
    parts = {f"{side}_lstm/lstm_cell/{n}": s for side in ("forward", "backward") for n, s in cell.items()}
    found = verdicts(
        config,
        shapes(
            pre={"kernel": (6, 7)}, bi=parts, end={"gamma": (8,), "beta": (8,)},
            gru={"gru_cell/kernel": (8, 9), "gru_cell/recurrent_kernel": (3, 9)}, head={"kernel": (3, 2)},
        ),
    )  # fmt: skip
    assert {v[0] for v in found.values()} == {"not invariant"}
    assert {v[2] for v in found.values()} == {"not proved"}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (layer("Conv2D", "end", "x", data_format="channels_first"), "channels first"),
        (layer("BatchNormalization", "end", "x", renorm=True), "renormalization"),
        (layer("Activation", "end", "x", activation={"config": "relu", "registered_name": "mine>relu"}), "activation"),
    ],
)
def test_what_would_be_misread_is_refused(entry: dict[str, Any], words: str):
    made = groups(model("end", entry), {"end/kernel": (3, 3, 3, 4), "end/gamma": (3,)})
    assert [f.code for f in made.findings] == ["graph-not-used"]
    assert words in made.findings[0].message


def test_a_second_result_of_a_layer_is_not_taken_for_its_first():
    entry = layer("ReLU", "end", "x")
    entry["inbound_nodes"][0]["args"][0]["config"]["keras_history"][2] = 1
    made = groups(model("end", entry), {"end/kernel": (3, 4)})
    assert "several results" in made.findings[0].message
