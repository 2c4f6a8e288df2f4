"""The graph's verdicts on small networks: against what is known by hand, and against the numerical oracle."""

from functools import cache

import euler
import pytest
import torch
from invariance_runs import run_of_model
from zoo import ZOO

from smd_analyze.invariance.graph import analyse
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.tracing import trace

# what the calculus is known to miss: an operation without a rule, and rows that these inputs never reach
MISSED = {("opaque_operation", "a.weight"), ("position_table_longer_than_the_input", "table")}
# what names cannot show: a padded pool, a gate or a branch between a layer and its norm, and a norm that is frozen
UNSEEN = {"padded_pool_before_norm", "zero_padded_shortcut", "squeeze_excite", "frozen_batch_norm"}


@cache
def verdicts(name):
    torch.manual_seed(0)
    model, inputs, _ = ZOO[name]()
    return analyse(trace(model, inputs, {}, name))[0]


@cache
def products(name):
    return euler.products(ZOO[name])


def parts(name, verdict):
    """w·∂y/∂w of each unit of a verdict."""
    product = products(name)[verdict.parameter]
    if product.ndim == 1:
        return [product]
    start, stop = verdict.extent(tuple(product.shape[1:]))
    if verdict.every:  # the indices, one run after another
        runs = product.movedim(verdict.axis + 1, 0).unflatten(0, (-1, verdict.every))[:, start:stop].flatten(0, 1)
        return runs.movedim(0, 1).split(runs.shape[0] // verdict.units, 1)
    axis = verdict.axis + 1
    return product.narrow(axis, start, stop - start).split((stop - start) // verdict.units, axis)


@pytest.mark.parametrize("name", ZOO)
def test_verdicts_known_by_hand(name):
    expected = ZOO[name]()[2]
    found = {p: [(v.status, v.granularity) for v in rows] for p, rows in verdicts(name).items() if p in expected}
    assert found == {p: e if isinstance(e, list) else [e] for p, e in expected.items()}


@pytest.mark.parametrize("name", ZOO)
def test_nothing_is_claimed_that_the_oracle_refutes(name):
    rows = [v for found in verdicts(name).values() for v in found]
    for verdict in rows:
        if verdict.status == "invariant":
            units = parts(name, verdict)
            assert len(units) == verdict.units
            assert max(euler.residual([u]) for u in units) < euler.INVARIANT, verdict
        elif verdict.status == "dead":
            assert all(euler.is_dead(p, products(name)) for p in parts(name, verdict)), verdict
        elif verdict.status == "jointly invariant":
            together = [parts(name, v) for v in rows if v.joint == verdict.joint]
            assert len(together) > 1
            assert max(euler.residual(list(us)) for us in zip(*together, strict=True)) < euler.INVARIANT, verdict


@pytest.mark.parametrize("name", ZOO)
def test_no_invariance_is_missed(name):
    for parameter, rows in verdicts(name).items():
        product = products(name)[parameter]
        if (name, parameter) in MISSED or len(rows) > 1:
            continue
        (verdict,) = rows
        if euler.is_dead(product, products(name)):
            assert verdict.status == "dead", verdict
        elif euler.residual([product]) < euler.INVARIANT:
            assert verdict.status == "invariant", verdict
        if product.ndim > 2 and verdict.granularity != "unit" and verdict.status != "dead":
            for axis in range(1, product.ndim):
                if product.shape[axis] > 1:
                    rows_alone = [euler.residual([r]) for r in product.split(1, axis)]
                    assert max(rows_alone) > euler.INVARIANT, (verdict, axis)


@pytest.mark.parametrize("alphabetical", [False, True])
@pytest.mark.parametrize("name", [n for n in ZOO if n not in UNSEEN])
def test_names_alone_claim_nothing_that_the_graph_denies(name, alphabetical):
    model = ZOO[name]()[0]
    groups = find_groups(run_of_model(model, alphabetical=alphabetical))
    for row in groups.parameters:
        if row.status not in ("invariant", "jointly invariant", "dead"):
            continue
        truth = verdicts(name)[row.parameter]
        allowed = {(v.status, v.granularity) for v in truth}
        if row.granularity == "whole":  # less than the truth is no error
            allowed |= {(v.status, "whole") for v in truth}
            allowed |= {("jointly invariant", "whole") for v in truth if v.status in ("invariant", "dead")}
        assert (row.status, row.granularity) in allowed, row


def test_reasons_name_the_module():
    rows = verdicts("residual_post_norm")
    assert rows["conv1.weight"][0].reason == "bn1 (BatchNorm2d) divides its scale out"
    assert "fc (Linear)" in rows["fc.weight"][0].reason
    rows = verdicts("pre_norm_language_model")
    assert "norm (RMSNorm) divides their common" in rows["layers.0.self_attn.o_proj.weight"][0].reason
    assert "softmax" in rows["layers.0.self_attn.q_proj.weight"][0].reason
    assert "silu" in rows["layers.0.mlp.gate_proj.weight"][0].reason
    assert "linalg_svdvals" in verdicts("opaque_operation")["a.weight"][0].reason
    assert "1 (BatchNorm2d) subtracts" in verdicts("conv_bias_batch_norm")["0.bias"][0].reason


def test_evidence_and_roles():
    rows = verdicts("conv_bias_batch_norm")
    assert [(v.evidence, v.role) for p in ("0.weight", "0.bias", "9.weight", "5.weight") for v in rows[p]] == [
        ("proved", "conv"),
        ("proved", "bias"),
        ("not proved", "linear"),
        ("not proved", "norm gain"),
    ]
    assert verdicts("embedding_under_norm")["embed.weight"][0].role == "embedding"


def test_units_of_blocks():
    assert verdicts("query_key_norm_per_head")["layers.0.self_attn.q_proj.weight"][0].units == 2
    qkv = verdicts("fused_qkv_normalized")["qkv.weight"]
    assert [(v.part, v.units) for v in qkv] == [((0, 16), 4), ((16, 24), 8)]
    up = verdicts("instance_norm_transposed_conv")["up.weight"][0]
    assert (up.axis, up.units) == (1, 5)
