"""The model's names against the run's: other frameworks' words and layouts, fused and split tensors, other models."""

import pytest
import torch
from invariance_runs import lazy, run_of, status_of
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from smd_analyze.errors import UsageError
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.renaming import canonical
from smd_analyze.records.run import Checkpoint, Run

HEADS, SIZE = 2, 3
WIDTH = HEADS * SIZE
INPUTS = (torch.ones(2, 4, WIDTH),)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("params/layers_0/Dense_1/kernel", "layers.0.dense.1.weight"),
        ("params.BatchNorm_0.scale", "batchnorm.0.weight"),
        ("conv2d_3/kernel:0", "conv2d.3.weight"),
        ("conv.parametrizations.weight.original0", "conv.weight_g"),
        ("conv.parametrizations.weight.original1", "conv.weight_v"),
        ("conv.parametrizations.weight.original", "conv.weight_orig"),
        ("attn.in_proj_weight", "attn.in_proj.weight"),
        ("layers.0._orig_mod.fc.weight", "layers.0.fc.weight"),
        ("temperature", "temperature"),
    ],
)
def test_one_word_for_what_frameworks_call_differently(name, plain):
    assert canonical(name) == plain


class Attention(nn.Module):
    """Queries and keys normalized per head; the projections apart, or in one tensor."""

    def __init__(self, fused, bias=False):
        super().__init__()
        self.fused, self.norm = fused, nn.LayerNorm(WIDTH)
        if fused:
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
        else:
            self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        h = self.norm(x)
        parts = self.qkv(h).chunk(3, -1) if self.fused else (self.q_proj(h), self.k_proj(h), self.v_proj(h))
        q, k, v = (t.unflatten(-1, (HEADS, SIZE)).transpose(1, 2) for t in parts)
        y = functional.scaled_dot_product_attention(functional.normalize(q, dim=-1), functional.normalize(k, dim=-1), v)
        return x + self.out(y.transpose(1, 2).flatten(-2))


def shapes(model, prefix=""):
    return {prefix + n: tuple(p.shape) for n, p in model.named_parameters()}


def rows(groups, parameter):
    return [(r.slice, r.status, r.granularity, r.evidence) for r in groups.parameters if r.parameter == parameter]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_fused_file_and_a_model_with_parts(prefix):
    run = run_of(shapes(Attention(True), prefix))
    groups = find_groups(run, Attention(False), INPUTS)
    assert rows(groups, f"{prefix}qkv.weight") == [
        ("0:6", "invariant", "block", "proved"), ("6:12", "invariant", "block", "proved"),
        ("12:18", "not invariant", "", "not proved"),
    ]  # fmt: skip
    assert [(g.units, g.members[0].start) for g in groups.groups if g.status == "invariant"] == [(2, 0), (2, 6)]
    assert groups.findings == ()


def test_a_file_with_parts_and_a_fused_model():
    groups = find_groups(run_of(shapes(Attention(False))), Attention(True), INPUTS)
    assert rows(groups, "q_proj.weight") == [("", "invariant", "block", "proved")]
    assert rows(groups, "k_proj.weight") == [("", "invariant", "block", "proved")]
    assert rows(groups, "v_proj.weight") == [("", "not invariant", "", "not proved")]
    assert [g.units for g in groups.groups if g.status == "invariant"] == [2, 2]
    assert groups.findings == ()


def test_a_fused_tensor_that_lies_the_other_way_round():
    given = shapes(Attention(True))
    given["c_attn.weight"] = given.pop("qkv.weight")[::-1]
    groups = find_groups(run_of(given), Attention(False), INPUTS)
    members = [g.members[0] for g in groups.groups if g.status == "invariant"]
    assert [(m.parameter, m.axis, m.start, m.stop) for m in members] == [
        ("c_attn.weight", 1, 0, 6), ("c_attn.weight", 1, 6, 12),
    ]  # fmt: skip


def test_a_fused_bias_and_its_dead_slice():
    groups = find_groups(run_of(shapes(Attention(True, bias=True))), Attention(False, bias=True), INPUTS)
    assert [status for _, status, *_ in rows(groups, "qkv.bias")][2] == "not invariant"
    assert not [r for r in groups.parameters if r.evidence == "guessed"]


def test_interleaved_parts_are_not_matched_silently():
    given = shapes(Attention(True))
    given["query_key_value.weight"] = given.pop("qkv.weight")
    groups = find_groups(run_of(given), Attention(False), INPUTS)
    assert {f.code for f in groups.findings} == {"fused-not-matched", "not-in-model", "not-in-run"}
    assert {r.evidence for r in groups.parameters if "query" in r.parameter} == {"guessed"}


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv_0, self.batch_norm_0 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.dense_0 = nn.Linear(4, 2)

    def forward(self, x):
        return self.dense_0(torch.relu(self.batch_norm_0(self.conv_0(x))).mean((2, 3)))


def test_flax_names_and_layouts_under_a_torch_model():
    kept = {
        "params/Conv_0/kernel": lazy((3, 3, 3, 4), "HWIO"), "params/Conv_0/bias": lazy((4,)),
        "params/Batch_Norm_0/scale": lazy((4,)), "params/Batch_Norm_0/bias": lazy((4,)),
        "params/Dense_0/kernel": lazy((4, 2), "IO"), "params/Dense_0/bias": lazy((2,)),
    }  # fmt: skip
    run = Run("run", (Checkpoint(1, "1", "msgpack", "flax", kept),), "name", "optimizer steps")
    groups = find_groups(run, Convolutions, (torch.ones(2, 3, 8, 8),))
    assert groups.findings == ()
    conv = next(g for g in groups.groups if "Conv_0" in g.name)
    assert (conv.status, conv.evidence, conv.units, conv.members[0].axis) == ("invariant", "proved", 4, 3)
    assert status_of(groups, "params/Conv_0/bias") == ("dead", "")


def test_both_generations_of_weight_norm_are_one():
    new = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))
    given = {"0.weight_g": (4, 1), "0.weight_v": (4, 3), "0.bias": (4,), "2.weight": (2, 4), "2.bias": (2,)}
    groups = find_groups(run_of(given), lambda: new, (torch.ones(2, 3),))
    assert status_of(groups, "0.weight_v") == ("invariant", "unit")
    assert {r.evidence for r in groups.parameters} == {"proved", "not proved"}
    assert groups.findings == ()


def test_a_model_that_is_plainly_another_one_is_refused():
    small = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    given = {f"{i}.weight": (4, 4) if i == 0 else (8, 8) for i in range(6)}
    with pytest.raises(UsageError, match=r"not the model of this run: only 1 of 6 matrices"):
        find_groups(run_of(given), lambda: small, (torch.ones(2, 4),))


def test_one_of_two_models_in_a_file_is_no_other_model():
    given = {f"discriminator.{i}.weight": (8, 8) for i in range(9)}
    given |= {"generator.0.weight": (4, 4), "generator.0.bias": (4,)}
    groups = find_groups(run_of(given), lambda: nn.Sequential(nn.Linear(4, 4)), (torch.ones(2, 4),))
    assert [f.code for f in groups.findings] == ["not-in-model"]
    assert {r.evidence for r in groups.parameters if "generator" in r.parameter} == {"not proved"}
