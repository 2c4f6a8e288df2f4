"""Sums that feel no gradient: every claim against numerical gradients, and the known cases by hand."""

import pytest
import torch
import torch.nn.functional as F
from invariance_runs import run_of_model
from torch import nn
from zoo import ZOO
from zoo_parts import Net, image, pooled, sequence, tokens, vector

from smd_analyze.invariance.explaining import explain
from smd_analyze.invariance.graph import analyse
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.tracing import trace

UNITS, WITHIN = "sum over units", "within unit"
CASES = (
    "pre_norm_encoder_layer", "post_norm_encoder_layer", "embedding_under_norm", "weight_standardization",
    "group_norm", "layer_norm_mlp", "rms_norm_does_not_centre", "low_rank_merged", "conv_bias_batch_norm",
    "query_key_norm_with_bias", "tied_transposed", "recurrent", "fused_qkv_normalized",
)  # fmt: skip


def found(model, inputs):
    rows = analyse(trace(model, inputs, {}, "model"))[0]
    return {(n, t.functional): t for n, vs in rows.items() for v in vs for t in v.translations}


def feels(model, inputs, parameter, axes, softmax):
    """Largest |Σ gradient| over the axes, over Σ |gradient|, at random points and projections of the output."""
    model = model.double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    p = dict(model.named_parameters())[parameter]
    worst = 0.0
    for seed in range(3):
        torch.manual_seed(seed)
        with torch.no_grad():
            for q in model.parameters():
                q.add_(0.3 * torch.randn_like(q))
        y = model(*inputs)
        if softmax:
            y = y.log_softmax(1 if y.ndim == 4 else -1)
        (g,) = torch.autograd.grad(y, [p], torch.randn_like(y))
        total = g.sum(axes).abs().max() if axes else g.abs().max()
        worst = max(worst, float(total / max(float(g.abs().sum(axes).max()) if axes else 1.0, 1e-300)))
    return worst


@pytest.mark.parametrize("name", CASES)
def test_every_claim_holds_numerically(name):
    torch.manual_seed(0)
    model, inputs, _ = ZOO[name]()
    claims = found(model, inputs)
    for (parameter, functional), t in claims.items():
        if functional != "whole":
            assert feels(model, inputs, parameter, t.axes, bool(t.assumed)) < 1e-11, t
    # and what is not claimed is felt
    for parameter, p in model.named_parameters():
        if (parameter, "whole") in claims or p.ndim < 2:
            continue
        for functional, axes in ((UNITS, (0,)), (WITHIN, tuple(range(1, p.ndim)))):
            if (parameter, functional) not in claims:
                assert feels(model, inputs, parameter, axes, True) > 1e-6, (parameter, functional)


def test_a_classifier_needs_the_softmax():
    net = nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 4))
    claims = found(net, vector())
    assert set(claims) == {("2.weight", UNITS), ("2.bias", UNITS)}
    assert "softmax" in claims["2.weight", UNITS].assumed
    assert feels(net, vector(), "2.weight", (0,), False) > 1e-3


def test_with_the_loss_in_the_graph_nothing_is_assumed():
    net = Net(
        lambda m, x, y: {"loss": F.cross_entropy(m.fc(torch.tanh(m.a(x))), y)}, a=nn.Linear(7, 6), fc=nn.Linear(6, 4)
    )
    claims = found(net, (*vector(), torch.tensor([0, 1, 2, 3, 0, 1])))
    assert set(claims) == {("fc.weight", UNITS), ("fc.bias", UNITS)}
    assert {t.assumed for t in claims.values()} == {""}
    assert "subtracts it" in claims["fc.weight", UNITS].reason


def test_a_squared_error_in_the_graph_spares_no_sum():
    net = Net(lambda m, x: {"loss": m.fc(torch.tanh(m.a(x))).square().mean()}, a=nn.Linear(7, 6), fc=nn.Linear(6, 4))
    assert found(net, vector()) == {}


class Stream(nn.Module):
    """A residual stream of many layers, normalized before each and at the end."""

    def __init__(self, norm, layers, dropout=0.0):
        super().__init__()
        self.embed, self.position = nn.Embedding(12, 8), nn.Parameter(torch.randn(6, 8))
        self.norms = nn.ModuleList(norm(8) for _ in range(layers + 1))
        self.up = nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(8, 8) for _ in range(layers))
        self.head, self.dropout = nn.Linear(8, 12, bias=False), nn.Dropout(dropout)

    def forward(self, i):
        x = self.embed(i) + self.position
        for norm, up, down in zip(self.norms, self.up, self.down, strict=False):
            x = x + self.dropout(down(F.gelu(up(norm(x)))))
        return self.head(self.norms[-1](x))


def test_the_writers_of_a_stream_that_layer_norms_read():
    claims = found(Stream(nn.LayerNorm, 12), tokens())
    assert {n for n, functional in claims if functional == WITHIN} == {"embed.weight", "position"}
    writers = {f"down.{i}.{t}" for i in range(12) for t in ("weight", "bias")}
    assert {n for n, functional in claims if functional == UNITS} == {"head.weight", *writers}


def test_rms_norm_and_dropout_do_not_spare_the_sum():
    assert set(found(Stream(nn.RMSNorm, 2), tokens())) == {("head.weight", UNITS)}
    dropped = found(Stream(nn.LayerNorm, 2, 0.1), tokens())  # a random mask is not the same for all features
    assert set(dropped) == {("head.weight", UNITS), ("embed.weight", WITHIN), ("position", WITHIN)}


def test_dead_biases_feel_nothing_at_all():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    t = found(net, image())["0.bias", "whole"]
    assert (t.axes, t.assumed) == ((), "")
    assert "1 (BatchNorm2d) subtracts" in t.reason


def test_a_convolution_as_classifier():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.out = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)

        def forward(self, x):
            return self.out(F.relu(self.a(x)))

    claims = found(Dense(), image())
    assert set(claims) == {("out.weight", UNITS), ("out.bias", UNITS)}
    assert feels(Dense(), image(), "out.weight", (0,), True) < 1e-11


def test_sums_reach_the_groups_and_are_told():
    net = Net(lambda m, x: m.fc(pooled(m.conv(x))), conv=nn.Conv2d(3, 4, 1), fc=nn.Linear(4, 5))
    groups = find_groups(run_of_model(net, prefix="module."), net, image())
    assert [(t.parameter, t.functional, t.axes) for t in groups.translations] == [
        ("module.fc.weight", UNITS, (0,)),
        ("module.fc.bias", UNITS, (0,)),
    ]
    text = explain(groups, "module.fc.weight")
    assert "feels no gradient" in text
    assert "if the loss is a softmax" in text
    assert "feels no gradient" not in explain(groups, "module.conv.weight")


def test_attention_ignores_shifts_of_its_keys():
    layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True)
    claims = found(nn.Sequential(layer, nn.Linear(8, 3)), sequence())
    assert ("0.self_attn.out_proj.weight", UNITS) in claims
    assert ("0.linear2.bias", UNITS) in claims
