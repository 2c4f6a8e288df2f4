"""Verdicts from names and shapes alone: claimed where it is sure, left open where it is not."""

import pytest
from invariance_runs import norm, run_of, status_of

from smd_analyze.invariance.grouping import find_groups

UNIT, BLOCK, WHOLE = ("invariant", "unit"), ("invariant", "block"), ("invariant", "whole")
NOT, DEAD, UNKNOWN = ("not invariant", ""), ("dead", ""), ("unknown", "")
JOINT_WHOLE, JOINT_BLOCK = ("jointly invariant", "whole"), ("jointly invariant", "block")


def verdict(shapes, parameter, **kwargs):
    return status_of(find_groups(run_of(shapes, **kwargs)), parameter)


def test_conv_before_batch_norm_in_numbered_sequence():
    shapes = {"encoder.0.0.weight": (64, 3, 3, 3), "encoder.0.0.bias": (64,)} | norm("encoder.0.1", 64)
    shapes |= {"fc.weight": (5, 64), "fc.bias": (5,)}
    assert verdict(shapes, "encoder.0.0.weight") == UNIT
    assert verdict(shapes, "encoder.0.0.bias") == DEAD
    assert verdict(shapes, "encoder.0.1.weight") == NOT
    assert verdict(shapes, "fc.weight") == NOT


def test_numbers_tell_the_order_when_the_file_is_sorted():
    shapes = {"0.weight": (8, 3, 3, 3), "2.weight": (4, 8, 3, 3)} | norm("1", 8) | norm("10", 4)
    groups = find_groups(run_of(dict(sorted(shapes.items()))))
    assert status_of(groups, "0.weight") == UNIT
    assert status_of(groups, "2.weight") == UNKNOWN  # 3 … 9 stand between


def test_depthwise_conv_has_one_unit_per_filter():
    shapes = {"a.conv.weight": (32, 1, 3, 3)} | norm("a.bn", 32) | {"b.conv.weight": (16, 32, 1, 1)} | norm("b.bn", 16)
    groups = find_groups(run_of(shapes))
    assert [(g.name, g.units, g.numel) for g in groups.groups] == [("a.conv", 32, 288), ("b.conv", 16, 512)]
    assert all(g.status == "invariant" for g in groups.groups)


def resnet(block, alphabetical=False):
    shapes = {"conv1.weight": (16, 3, 3, 3)}
    shapes |= norm("bn1", 16) if block[0].startswith("conv") else {}
    for layer, (i, o) in enumerate([(16, 16), (16, 32)]):
        for part in block:
            name, number = f"layer1.{layer}.{part}", part[-1]
            size = i if number == "1" else o
            if part.startswith("bn"):
                shapes |= norm(name, o if block[0].startswith("conv") else size)
            else:
                shapes[f"{name}.weight"] = (o, size, 3, 3)
    shapes |= norm("bn9", 32) if block[0].startswith("bn") else {}
    shapes |= {"fc.weight": (5, 32), "fc.bias": (5,)}
    return dict(sorted(shapes.items())) if alphabetical else shapes


@pytest.mark.parametrize("alphabetical", [False, True])
def test_post_norm_residual_blocks(alphabetical):
    shapes = resnet(["conv1", "bn1", "conv2", "bn2"], alphabetical)
    groups = find_groups(run_of(shapes))
    for name in [n for n in shapes if "conv" in n]:
        assert status_of(groups, name) == UNIT, name
    assert status_of(groups, "fc.weight") == NOT


def test_pre_activation_blocks_claim_only_their_first_conv():
    groups = find_groups(run_of(resnet(["bn1", "conv1", "bn2", "conv2"])))
    assert status_of(groups, "conv1.weight")[0] != "invariant"
    for layer in (0, 1):
        assert status_of(groups, f"layer1.{layer}.conv1.weight") == UNIT
        assert status_of(groups, f"layer1.{layer}.conv2.weight")[0] != "invariant"


def test_pre_activation_blocks_in_a_sorted_file_claim_nothing():
    groups = find_groups(run_of(resnet(["bn1", "conv1", "bn2", "conv2"], alphabetical=True)))
    assert {r.status for r in groups.parameters if len(r.shape) > 1} <= {"not invariant", "unknown"}


def test_branches_of_equal_size_before_one_norm_stay_open():
    shapes = {"b.conv3.weight": (6, 6, 3, 3), "b.conv1.weight": (6, 6, 1, 1)} | norm("b.bn1", 6) | {"fc.weight": (2, 6)}
    assert verdict(shapes, "b.conv1.weight") == UNKNOWN
    assert verdict(shapes, "b.conv3.weight")[0] != "invariant"


def test_squeeze_and_excitation_stays_open():
    shapes = {"b.conv2.weight": (8, 8, 1, 1), "b.se.fc1.weight": (2, 8, 1, 1), "b.se.fc2.weight": (8, 2, 1, 1)} | norm(
        "b.bn2", 8
    )
    shapes |= {"fc.weight": (2, 8)}
    assert verdict(shapes, "b.se.fc2.weight") == UNKNOWN
    flat = {k.replace("b.se.", "b."): v for k, v in shapes.items()}
    assert verdict(flat, "b.fc2.weight") == UNKNOWN


def test_head_conv_without_norm_is_not_invariant():
    shapes = {"body.0.weight": (8, 3, 3, 3)} | norm("body.1", 8) | {"head.weight": (4, 8, 1, 1), "head.bias": (4,)}
    assert verdict(shapes, "head.weight") == NOT
    assert verdict(shapes, "body.0.weight") == UNIT


def test_activation_between_conv_and_norm_cannot_be_seen_and_is_not_claimed():
    shapes = {"0.weight": (8, 3, 3, 3), "0.bias": (8,)} | norm("2", 8)
    assert verdict(shapes, "0.weight") == UNKNOWN
    assert verdict(shapes, "0.bias") == NOT


def test_norm_that_is_a_child_of_its_conv():
    shapes = {"res2.conv1.weight": (8, 3, 3, 3)} | norm("res2.conv1.norm", 8) | {"res2.conv2.weight": (8, 8, 3, 3)}
    groups = find_groups(run_of(shapes))
    assert status_of(groups, "res2.conv1.weight") == UNIT
    assert status_of(groups, "res2.conv2.weight") == NOT


def test_linear_before_layer_norm():
    shapes = {
        "0.weight": (8, 7),
        "0.bias": (8,),
        "1.weight": (8,),
        "1.bias": (8,),
        "3.weight": (6, 8),
        "4.weight": (6,),
        "4.bias": (6,),
    }
    groups = find_groups(run_of(shapes))
    assert status_of(groups, "0.weight") == JOINT_WHOLE == status_of(groups, "0.bias")
    assert status_of(groups, "3.weight") == WHOLE
    joint = groups.groups[0]
    assert (joint.name, joint.units, joint.numel) == ("0+bias", 1, 64)
    assert [m.parameter for m in joint.members] == ["0.weight", "0.bias"]


def test_transposed_conv_has_its_units_on_axis_1():
    shapes = {"main.0.weight": (100, 16, 4, 4)} | norm("main.1", 16)
    (group,) = find_groups(run_of(shapes)).groups
    assert (group.status, group.units) == ("invariant", 16)
    assert (group.members[0].axis, group.members[0].stop) == (1, 16)


def test_square_transposed_conv_stays_open():
    shapes = {"a.up1.weight": (16, 16, 4, 4)} | norm("a.bn1", 16) | {"b.weight": (2, 16)}
    assert verdict(shapes, "a.up1.weight")[0] == "unknown"


def test_layouts_say_where_the_outputs_are():
    shapes = {
        "conv1/kernel": (3, 3, 3, 8),
        "bn1/gamma": (8,),
        "bn1/beta": (8,),
        "bn1/moving_mean": (8,),
        "fc/kernel": (8, 5),
    }
    groups = find_groups(run_of(shapes, layouts={"conv1/kernel": "HWIO", "fc/kernel": "IO"}))
    assert [(g.name, g.status, g.units, g.members[0].axis) for g in groups.groups] == [
        ("conv1", "invariant", 8, 3),
        ("fc", "not invariant", 5, 1),
    ]


def test_parallel_shortcut_before_the_norm_in_layer_order_stays_open():
    shapes = {
        "conv2d_9/kernel": (3, 3, 32, 32),
        "conv2d_10/kernel": (1, 1, 16, 32),
        "bn_9/gamma": (32,),
        "bn_9/moving_mean": (32,),
    }
    groups = find_groups(run_of(shapes, layouts={"conv2d_9/kernel": "HWIO", "conv2d_10/kernel": "HWIO"}))
    assert status_of(groups, "conv2d_10/kernel")[0] == "unknown"
    assert status_of(groups, "conv2d_9/kernel")[0] == "unknown"  # the norm is its own, but the list does not tell


# ------------------------------------------------------------------ transformers

SIZES = {"q_proj": 16, "k_proj": 8, "v_proj": 8, "o_proj": 16, "gate_proj": 24, "up_proj": 24}


def decoder(norms, qk=None, bias=False):
    shapes = {"model.embed_tokens.weight": (50, 16)}
    for layer in ("model.layers.0", "model.layers.1"):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{layer}.self_attn.{name}.weight"] = (SIZES[name], 16)
            if bias:
                shapes[f"{layer}.self_attn.{name}.bias"] = (SIZES[name],)
        if qk:
            shapes |= {f"{layer}.self_attn.{n}_norm.weight": (qk[n],) for n in "qk"}
        shapes |= {f"{layer}.mlp.{n}.weight": (24, 16) for n in ("gate_proj", "up_proj")}
        shapes |= {f"{layer}.mlp.down_proj.weight": (16, 24)} | {f"{layer}.{n}.weight": (16,) for n in norms}
    return shapes | {"model.norm.weight": (16,), "lm_head.weight": (50, 16)}


def invariant_kinds(shapes):
    groups = find_groups(run_of(shapes))
    rows = {(r.parameter.split(".")[-2], r.status, r.granularity) for r in groups.parameters}
    return {row for row in rows if row[1] in ("invariant", "jointly invariant")}


@pytest.mark.parametrize("alphabetical", [False, True])
def test_pre_norm_decoder_has_no_invariant_matrix(alphabetical):
    shapes = decoder(["input_layernorm", "post_attention_layernorm"])
    assert invariant_kinds(dict(sorted(shapes.items())) if alphabetical else shapes) == set()


def test_query_and_key_norm_per_head():
    shapes = decoder(["input_layernorm", "post_attention_layernorm"], {"q": 4, "k": 4})
    assert invariant_kinds(shapes) == {("q_proj", *BLOCK), ("k_proj", *BLOCK)}
    units = {g.name: g.units for g in find_groups(run_of(shapes)).groups}
    assert units["model.layers.0.self_attn.q_proj"] == 4
    assert units["model.layers.0.self_attn.k_proj"] == 2


def test_query_and_key_bias_must_be_scaled_too():
    shapes = decoder(["input_layernorm", "post_attention_layernorm"], {"q": 4, "k": 4}, bias=True)
    assert invariant_kinds(shapes) == {("q_proj", *JOINT_BLOCK), ("k_proj", *JOINT_BLOCK)}


def test_norm_after_the_sublayer_reaches_what_is_linear():
    shapes = decoder(["post_attention_layernorm", "post_feedforward_layernorm"], {"q": 16, "k": 8})
    whole = {("q_proj", *WHOLE), ("k_proj", *WHOLE)}
    assert invariant_kinds(shapes) == whole | {(n, *WHOLE) for n in ("v_proj", "o_proj", "up_proj", "down_proj")}


def test_a_query_norm_alone_is_not_trusted():
    shapes = decoder(["input_layernorm", "post_attention_layernorm"], {"q": 4, "k": 4})
    shapes = {n: s for n, s in shapes.items() if "k_norm" not in n}
    assert invariant_kinds(shapes) == set()


def test_post_norm_encoder_layer():
    shapes = {}
    for layer in ("layers.0", "layers.1"):
        shapes |= {f"{layer}.self_attn.in_proj_weight": (24, 8), f"{layer}.self_attn.in_proj_bias": (24,)}
        shapes |= {f"{layer}.self_attn.out_proj.weight": (8, 8), f"{layer}.self_attn.out_proj.bias": (8,)}
        shapes |= {f"{layer}.linear1.weight": (12, 8), f"{layer}.linear1.bias": (12,)}
        shapes |= {f"{layer}.linear2.weight": (8, 12), f"{layer}.linear2.bias": (8,)}
        shapes |= {f"{layer}.norm{i}.{t}": (8,) for i in (1, 2) for t in ("weight", "bias")}
    assert invariant_kinds(shapes) == set()


def test_fused_query_key_value_has_a_row_per_slice():
    shapes = {"blocks.0.attn.qkv.weight": (48, 16), "blocks.0.attn.proj.weight": (16, 16)}
    shapes |= {f"blocks.0.attn.{n}_norm.weight": (4,) for n in "qk"}
    shapes |= {"blocks.0.norm1.weight": (16,), "blocks.0.norm1.bias": (16,)}
    groups = find_groups(run_of(shapes))
    rows = [(r.slice, r.status, r.granularity) for r in groups.parameters if "qkv" in r.parameter]
    assert rows == [("0:16", *BLOCK), ("16:32", *BLOCK), ("32:48", *NOT)]
    assert [g.name for g in groups.groups][:3] == [f"blocks.0.attn.qkv[{s}]" for s in ("0:16", "16:32", "32:48")]


def test_low_rank_factors_and_weight_norm():
    shapes = {"q.lora_A.weight": (4, 16), "q.lora_B.weight": (16, 4), "c.weight_g": (8, 1, 1), "c.weight_v": (8, 4, 3)}
    shapes |= {"d.parametrizations.weight.original0": (), "d.parametrizations.weight.original1": (6, 4)}
    groups = find_groups(run_of(shapes))
    assert status_of(groups, "q.lora_A.weight") == NOT == status_of(groups, "q.lora_B.weight")
    assert status_of(groups, "c.weight_v") == UNIT
    assert status_of(groups, "c.weight_g") == NOT
    assert status_of(groups, "d.parametrizations.weight.original1") == WHOLE


def test_a_filter_of_one_number_has_no_direction():
    """MobileOne's scale branch: a 1×1 depthwise convolution before its batch norm."""
    shapes = {"b.conv.weight": (8, 1, 1, 1)} | norm("b.bn", 8) | {"fc.weight": (2, 8)}
    assert verdict(shapes, "b.conv.weight") == ("dead", "")


def test_a_gain_per_filter_shows_a_standardized_kernel():
    shapes = {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv1.gain": (8, 1, 1, 1), "fc.weight": (2, 8)}
    assert verdict(shapes, "conv1.weight") == UNIT
    assert verdict(shapes | {"conv1.gain": (8,)}, "conv1.weight") != UNIT


def test_a_norm_between_two_numbered_convs_may_stand_after_an_activation():
    """XCiT's local interaction: conv1 → GELU → bn → conv2."""
    shapes = {f"b.conv{i}.weight": (8, 1, 3, 3) for i in (1,)} | norm("b.bn", 8)
    shapes |= {"b.conv2.weight": (8, 1, 3, 3), "fc.weight": (2, 8)}
    assert verdict(shapes, "b.conv1.weight") == UNKNOWN


def test_modules_of_one_name_show_which_way_round_they_go():
    """In a sorted file, pairs of equal sizes are as those whose sizes differ; two are too few to tell."""
    pairs = {}
    for i, (out, into) in enumerate([(8, 3), (16, 8), (32, 16), (32, 32)]):
        pairs |= {f"{'abcd'[i]}.conv.weight": (out, into, 3, 3)} | norm(f"{'abcd'[i]}.bn", out)
    every = dict(sorted((pairs | {"z.weight": (2, 32)}).items()))
    assert verdict(every, "d.conv.weight") == UNIT
    few = {k: v for k, v in every.items() if k[0] in "cdz"}
    assert verdict(few, "d.conv.weight") != UNIT
