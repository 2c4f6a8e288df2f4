"""Joint sets and rescalings: against the null space of the numerical oracle, and against what is known by hand."""

from fractions import Fraction
from functools import cache

import euler
import numpy as np
import pytest
import torch
from zoo import ZOO

import smd_analyze as smd
from smd_analyze.invariance import joint
from smd_analyze.invariance.graph import analyse
from smd_analyze.invariance.joint_space import JointSpace, Rows, TooLarge
from smd_analyze.invariance.joint_verdicts import set_name, told
from smd_analyze.invariance.lattice import GROUND, Factor
from smd_analyze.invariance.rules import RULES
from smd_analyze.invariance.tracing import trace
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.invariance.walking import walk

CASES = (
    "pre_norm_language_model", "query_key_norm_with_bias", "post_norm_encoder_layer", "pre_norm_encoder_layer",
    "fused_qkv_normalized", "conv_bias_batch_norm", "residual_post_norm", "residual_pre_activation", "group_norm",
    "squeeze_excite", "branches_before_one_norm", "zero_padded_shortcut", "padded_pool_before_norm",
    "dense_concatenation", "layer_norm_mlp", "batch_norm_mlp", "two_linears_then_norm", "rms_norm_does_not_centre",
    "weight_norm_and_cosine_head", "low_rank_merged", "written_in_place", "opaque_operation",
)  # fmt: skip
FEWER = {"opaque_operation"}  # no rule, so nothing before it may change


@cache
def traced(name):
    torch.manual_seed(0)
    model, inputs, _ = ZOO[name]()
    return trace(model, inputs, {}, name)


@cache
def bases(name):
    return joint.rescalings(walk(traced(name), RULES, lambda _: 0, JointSpace(), True)[0], ())


@cache
def sums(name):
    """Σ w·∂y/∂w and Σ |w·∂y/∂w| of each parameter at many points: {name: [K]}."""
    before = euler.POINTS
    euler.POINTS = 24
    try:
        products = euler.products(ZOO[name])
    finally:
        euler.POINTS = before
    flat = {n: p.reshape(len(p), -1) for n, p in products.items()}
    return {n: p.sum(1).numpy() for n, p in flat.items()}, {n: p.abs().sum(1).numpy() for n, p in flat.items()}


@pytest.mark.parametrize("name", CASES)
def test_every_rescaling_leaves_the_output_alone(name):
    total, size = sums(name)
    largest = max(s.max() for s in size.values())
    raw, short = bases(name)
    assert len(raw) == len(short)
    for rescaling in (*raw, *short):
        change = sum(c * total[n] for n, c in rescaling.items())
        scale = sum(abs(c) * size[n] for n, c in rescaling.items()).max()
        assert np.abs(change).max() <= 1e-9 * max(scale, 1e-3 * largest), rescaling


@pytest.mark.parametrize("name", CASES)
def test_as_many_rescalings_as_the_null_space_has(name):
    total, size = sums(name)
    largest = max(s.max() for s in size.values())
    names = [n for n in total if size[n].max() > 1e-12 * largest]
    matrix = np.stack([total[n] / size[n].max() for n in names], 1)
    spectrum = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=1, keepdims=True).clip(1e-12), compute_uv=False)
    null = int((spectrum < 1e-9 * spectrum[0]).sum()) + max(0, len(names) - len(spectrum))
    raw, _ = bases(name)
    live = set(names)
    found = [{n: c for n, c in g.items() if n in live} for g in raw]
    vectors = np.array([[g.get(n, 0) for n in names] for g in found if g] or np.zeros((1, len(names))))
    dimension = int(np.linalg.matrix_rank(vectors))
    assert dimension <= null
    if name not in FEWER:
        assert dimension == null


def test_shortened_keeps_the_space():
    for name in ("pre_norm_language_model", "residual_pre_activation"):
        raw, short = bases(name)
        names = sorted({n for g in raw for n in g})
        stacked = np.array([[g.get(n, 0) for n in names] for g in (*raw, *short)])
        assert np.linalg.matrix_rank(stacked) == np.linalg.matrix_rank(stacked[: len(raw)]) == len(raw)
        assert sum(c * c for g in short for c in g.values()) <= sum(c * c for g in raw for c in g.values())


def test_partners_of_a_pre_norm_transformer():
    rows = analyse(traced("pre_norm_language_model"))[0]
    attn, mlp = "layers.0.self_attn", "layers.0.mlp"

    def partners(name):
        return dict(rows[f"{name}.weight"][0].partners)

    assert partners(f"{attn}.v_proj") == {f"{attn}.v_proj.weight": 1, f"{attn}.o_proj.weight": -1}
    assert partners(f"{attn}.q_proj") == {f"{attn}.q_proj.weight": 1, f"{attn}.k_proj.weight": -1}
    assert partners(f"{mlp}.up_proj") == {f"{mlp}.up_proj.weight": 1, f"{mlp}.down_proj.weight": -1}
    assert partners("lm_head") == {"lm_head.weight": 1, "norm.weight": -1}
    gain = partners("layers.0.input_layernorm")
    assert gain["layers.0.input_layernorm.weight"] == 1
    assert set(gain.values()) == {1, -1}


def test_the_residual_stream_is_one_set():
    rows = analyse(traced("pre_norm_language_model"))[0]
    members = {n for n, found in rows.items() if found[0].joint == "embed_tokens.weight"}
    writers = {f"layers.{i}.{m}.weight" for i in (0, 1) for m in ("self_attn.o_proj", "mlp.down_proj")}
    assert members == {"embed_tokens.weight", *writers}
    assert all(rows[n][0].granularity == "whole" for n in members)


def test_units_of_a_joint_set():
    rows = analyse(traced("residual_pre_activation"))[0]
    found = {n: (v[0].joint, v[0].granularity, v[0].units, v[0].axis) for n, v in rows.items() if "conv2" in n}
    assert found["blocks.0.conv2.weight"] == ("conv1.weight", "unit", 6, 0)
    assert rows["blocks.1.shortcut.weight"][0].joint == rows["blocks.1.conv2.weight"][0].joint


def test_what_is_invariant_alone_is_in_no_set():
    for name in CASES:
        for rows in analyse(traced(name))[0].values():
            assert all(not v.joint and not v.partners for v in rows if v.status in ("invariant", "dead"))


def test_rows_of_three_variables_are_solved_exactly():
    rows = Rows()
    rows.add({2: Fraction(1), 3: Fraction(1), 4: Fraction(-1)})  # x4 = x2 + x3
    rows.add({3: Fraction(2), 4: Fraction(-1), 5: Fraction(1)})  # x5 = x2 − x3
    assert rows.reduced({5: Fraction(1)}) == {2: 1, 3: -1}
    rows.add({4: Fraction(1)})  # then x3 = −x2
    assert rows.reduced({5: Fraction(1)}) == {2: 2}
    assert rows.reduced({4: Fraction(1)}) == {}
    rows.add({5: Fraction(1)})
    assert rows.reduced({2: Fraction(1), 3: Fraction(1)}) == {}


def test_a_sum_of_degrees_that_is_known_to_be_zero_is_seen_to_be():
    space = JointSpace()
    a, b, c = (space.fresh((), i) for i in range(3))
    factors = tuple(Factor((), ids, np.array(k)) for ids, k in ((a, 1.0), (b, 1.0), (c, -1.0)))
    space.zero(factors)
    assert space.canonical(factors) == ()
    space.ground(c)
    root, ratio = space.find(np.array([a, b]))
    assert root[0] == root[1] != GROUND
    assert ratio[0] == -ratio[1]


def test_a_system_that_grows_too_large_says_nothing(monkeypatch):
    monkeypatch.setattr("smd_analyze.invariance.joint_space.MOST_NUMBERS", 3)
    rows, findings = analyse(traced("pre_norm_language_model"))
    assert "joint-sets-not-searched" in [f.code for f in findings]
    assert not any(v.joint for found in rows.values() for v in found)
    space = JointSpace()
    ids = space.fresh((8,), 0)
    space.tie(ids[:-1], np.ones(7), ids[1:], -np.ones(7))
    with pytest.raises(TooLarge):
        space.solve()


def test_names_of_sets():
    assert set_name(["fc.weight", "fc.bias"]) == "fc+bias"
    assert set_name(["block.conv3.weight", "block.conv1.weight"]) == "block.conv3+conv1"
    assert set_name(["w", "b"]) == "w+b"
    assert set_name(["a.weight", "b.c.weight", "d.weight"]) == "a+2 more"


def member(name, joint="a.weight"):
    return Verdict(name, "linear", "jointly invariant", "it cancels", "proved", "whole", joint=joint)


def test_a_set_that_the_run_does_not_hold_whole_is_none():
    proved = {n: [member(n)] for n in ("a.weight", "b.weight")}
    aliases = {n: n for n in proved}
    (one,) = told([member("x.a.weight")], {"x.a.weight": "a.weight"}, aliases, proved)
    assert (one.status, one.joint) == ("not invariant", "")
    assert "b.weight, which the run does not hold" in one.reason
    matched = {"x.a.weight": "a.weight", "x.b.weight": "b.weight"}
    both = told([member("x.a.weight"), member("x.b.weight")], matched, aliases, proved)
    assert {v.joint for v in both} == {"x.a+b"}
    assert both[0].reason == "with x.b.weight: it cancels"


def test_a_tied_copy_is_not_counted_twice():
    proved = {n: [member(n)] for n in ("a.weight", "b.weight")}
    aliases = {"a.weight": "a.weight", "b.weight": "b.weight", "head.weight": "a.weight"}
    rows = told([member(n) for n in aliases], {n: n for n in aliases}, aliases, proved)
    assert [bool(v.joint) for v in rows] == [True, True, False]
    assert rows[2].reason == "the same tensor as a.weight, with which it is counted"


def test_partners_are_told_under_the_names_of_the_run():
    v = Verdict("x.v", "linear", "not invariant", "it is added", "not proved", partners=(("v", 1), ("o", -1), ("g", 2)))
    (row,) = told([v], {"x.v": "v", "x.o": "o"}, {"v": "v", "o": "o", "g": "g"}, {})
    assert row.reason == ("it is added; rescaling it (×) with x.o (÷), g (×, power 2) leaves the output unchanged")


def test_a_joint_set_is_one_vector_from_the_files_to_the_table(tmp_path):
    torch.manual_seed(0)
    model, inputs, _ = ZOO["residual_pre_activation"]()
    for step in (0, 10):
        torch.save({"model": model.state_dict(), "step": step}, tmp_path / f"step_{step}.pt")
        with torch.no_grad():
            for tensor in model.state_dict().values():  # running statistics too: else the norms count as frozen
                tensor.add_(tensor * 0.5 + 0.01 if tensor.is_floating_point() else 1)
    run = smd.load_run(tmp_path)
    groups = smd.find_groups(run, lambda: model, inputs)
    (group,) = [g for g in groups.groups if g.name == "conv1+blocks.0.conv2"]
    assert [m.parameter for m in group.members] == ["conv1.weight", "blocks.0.conv2.weight"]
    stats = smd.measure(run, groups)
    saved = run.checkpoints[0].parameters
    both = torch.cat([saved[m.parameter].load().flatten(1) for m in group.members], 1).double()
    np.testing.assert_allclose(stats.units(group.name).vv[0], both.square().sum(1), rtol=1e-6)
    # and each matrix of the set is followed by itself, too
    alone = {g.name: g.status for g in groups.groups if g.name in ("conv1", "blocks.0.conv2")}
    assert alone == {"conv1": "not invariant", "blocks.0.conv2": "not invariant"}
