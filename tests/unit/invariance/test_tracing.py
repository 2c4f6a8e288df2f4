"""Model → graph: training semantics, which outputs are read, tied tensors, and the fallback."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from invariance_runs import run_of_model, status_of
from torch import nn

from smd_analyze.invariance.graph import analyse
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.tracing import read_outputs, trace

UNIT, NOT = ("invariant", "unit"), ("not invariant", "")


def statuses(model, inputs, **kwargs):
    verdicts, _ = analyse(trace(model, inputs, kwargs, "model"))
    return {p: [(v.status, v.granularity) for v in rows] for p, rows in verdicts.items()}


def conv_net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


def test_traced_in_training_mode_and_left_as_it_was():
    model = conv_net().eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert statuses(model, (torch.zeros(2, 3, 8, 8),))["0.weight"] == [UNIT]
    assert not any(m.training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_loss_or_the_logits_are_read_before_all_else():
    @dataclass
    class Output:
        logits: torch.Tensor
        cache: torch.Tensor

    x, y = torch.ones(2), torch.zeros(3)
    assert read_outputs(x) == ((x,), "output")
    assert read_outputs((x, None, y)) == ((x, y), "all 2 outputs")
    assert read_outputs({"logits": x, "past": y}) == ((x,), "logits")
    assert read_outputs({"loss": y, "logits": x}) == ((y,), "loss")
    assert read_outputs(Output(x, y)) == ((x,), "logits")
    assert read_outputs((torch.ones(2, dtype=torch.int64),))[0] == ()


def test_a_second_output_changes_the_answer():
    class Two(nn.Module):
        def __init__(self, both):
            super().__init__()
            self.a, self.ln, self.both = nn.Linear(7, 8, bias=False), nn.LayerNorm(8), both

        def forward(self, x):
            h = self.a(x)
            return (self.ln(h), h) if self.both else self.ln(h)

    assert statuses(Two(False), (torch.zeros(2, 7),))["a.weight"] == [("invariant", "whole")]
    assert statuses(Two(True), (torch.zeros(2, 7),))["a.weight"] == [NOT]


def test_a_normalization_inside_the_loss_counts():
    class WithLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(7, 8, bias=False)

        def forward(self, x, labels):
            return {"loss": F.cross_entropy(F.normalize(self.a(x), dim=-1), labels)}

    assert statuses(WithLoss(), (torch.zeros(2, 7), torch.tensor([0, 1])))["a.weight"] == [("invariant", "whole")]


def test_tied_tensors_share_one_verdict():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm = nn.Embedding(12, 8), nn.LayerNorm(8)
            self.head = nn.Linear(8, 12, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, i):
            return self.head(F.relu(self.norm(self.embed(i))))

    model = Tied()
    groups = find_groups(run_of_model(model), model, torch.zeros(2, 5, dtype=torch.int64))
    assert status_of(groups, "embed.weight") == NOT == status_of(groups, "head.weight")


def test_branches_on_data_fall_back_to_running_the_model():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.bn, self.b = nn.Linear(7, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

        def forward(self, x):
            h = self.bn(self.a(x))
            return self.b(F.relu(h)) if float(h.sum()) < 1e9 else h

    found = statuses(Branching(), (torch.randn(4, 7),))
    assert (found["a.weight"], found["a.bias"], found["b.weight"]) == ([UNIT], [("dead", "")], [NOT])


def test_dropout_keeps_a_bias_from_being_constant():
    def net(p):
        return nn.Sequential(nn.Linear(7, 8), nn.Dropout(p), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))

    assert statuses(net(0.0), (torch.zeros(4, 7),))["0.bias"] == [("dead", "")]
    dropped = statuses(net(0.5), (torch.zeros(4, 7),))
    assert dropped["0.bias"] == dropped["0.weight"] == [("jointly invariant", "unit")]


def test_zero_buffers_that_training_fills_are_not_taken_for_zero():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.ln = nn.Linear(7, 8, bias=False), nn.LayerNorm(8)
            self.register_buffer("shift", torch.zeros(8))

        def forward(self, x):
            return self.ln(self.a(x) + self.shift)

    assert statuses(Shifted(), (torch.zeros(2, 7),))["a.weight"] == [NOT]


def test_an_operation_without_a_rule_is_a_finding():
    class Opaque(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(7, 7, bias=False), nn.Linear(7, 2)

        def forward(self, x):
            return self.b(torch.linalg.inv(self.a(x)))

    groups = find_groups(run_of_model(Opaque()), Opaque, torch.eye(7))
    assert {f.code for f in groups.findings} == {"operation-without-rule"}
    assert status_of(groups, "a.weight") == NOT


def test_inputs_guessed_for_a_model_with_a_config():
    class Config:
        vocab_size, max_position_embeddings, use_cache = 12, 6, True

    class Named(nn.Module):
        main_input_name = "input_ids"

        def __init__(self):
            super().__init__()
            self.config, self.embed = Config(), nn.Embedding(12, 8)
            self.positions, self.norm, self.head = nn.Parameter(torch.zeros(6, 8)), nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, input_ids):
            assert not self.config.use_cache
            return {"logits": self.head(self.norm(self.embed(input_ids) + self.positions))}

    model = Named()
    groups = find_groups(run_of_model(model), model)
    assert groups.source == "graph of Named, logits as the output"
    assert model.config.use_cache
