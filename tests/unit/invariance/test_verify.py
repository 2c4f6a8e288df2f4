"""The numeric check: it confirms what is true, contradicts what is false, and says what it cannot tell."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from invariance_runs import run_of_model
from torch import nn
from zoo import ZOO
from zoo_parts import Net, vector

from smd_analyze.errors import UsageError
from smd_analyze.invariance import verifying_run
from smd_analyze.invariance.graph import analyse
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.tracing import trace
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.invariance.verifying import verify
from smd_analyze.invariance.verifying_points import POINTS, Probe
from smd_analyze.records.run import Checkpoint, LazyTensor, Run


def checked(model, inputs, verdicts=None, **more):
    if verdicts is None:
        verdicts = analyse(trace(model, inputs, {}, "model"))[0]
    return verify(model, (inputs, {}), more.pop("weights", {}), verdicts, "model", **more)


def saved(model):
    """A run with one checkpoint of the model's numbers."""

    def lazy(tensor):
        array = tensor.detach().numpy().copy()
        return LazyTensor(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), lambda: array.copy())

    names = dict(model.named_parameters())
    tensors = {k: lazy(v) for k, v in model.state_dict().items() if k in names}
    return Run("run", (Checkpoint(1, "1.pt", "torch", "plain", tensors),), "file name", "optimizer steps")


def only(rows):
    (row,) = rows
    return row


@pytest.mark.parametrize(
    "name", ["residual_pre_activation", "query_key_norm_per_head", "weight_norm_and_cosine_head", "group_norm",
             "padded_pool_before_norm", "rms_norm_does_not_centre", "frozen_batch_norm", "zero_padded_shortcut"],
)  # fmt: skip
def test_right_verdicts_are_confirmed_and_others_refuted(name):
    torch.manual_seed(0)
    model, inputs, _ = ZOO[name]()
    before = analyse(trace(model, inputs, {}, name))[0]
    after, findings = checked(model, inputs, before)
    assert [f.code for f in findings] == ["numeric-check"]
    for parameter, rows in before.items():
        for old, new in zip(rows, after[parameter], strict=True):
            assert (new.status, new.granularity, new.units) == (old.status, old.granularity, old.units)
            assert new.evidence == ("refuted" if old.status == "not invariant" else "proved and confirmed"), new


def test_a_false_claim_is_contradicted_loudly():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))
    verdicts = analyse(trace(net, vector(), {}, "net"))[0]
    wrong = only(verdicts["3.weight"])
    verdicts["3.weight"] = [replace(wrong, status="invariant", granularity="unit", evidence="proved", units=3)]
    verdicts["1.bias"] = [replace(only(verdicts["1.bias"]), status="dead", evidence="proved")]
    after, findings = checked(net, vector(), verdicts)
    for name in ("3.weight", "1.bias"):
        assert (only(after[name]).status, only(after[name]).evidence) == ("not invariant", "refuted")
        assert "numerically its scale matters" in only(after[name]).reason
    assert {(f.code, f.severity, f.where) for f in findings if f.code != "numeric-check"} == {
        ("invariance-contradicted", "error", "3.weight"), ("invariance-contradicted", "error", "1.bias"),
    }  # fmt: skip
    assert all(f.remedy for f in findings if f.severity == "error")


def test_a_false_guess_is_a_warning_only():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 8), nn.Tanh(), nn.LayerNorm(8))
    guess = Verdict("0.weight", "linear", "invariant", "a norm follows", "guessed", "unit", units=8)
    after, findings = checked(net, vector(), {"0.weight": [guess]})
    assert (only(after["0.weight"]).status, only(after["0.weight"]).evidence) == ("not invariant", "refuted")
    assert [(f.code, f.severity) for f in findings[:-1]] == [("invariance-contradicted", "warning")]


def test_a_granularity_that_is_too_fine_is_contradicted():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 8, bias=False), nn.LayerNorm(8), nn.Linear(8, 3))
    verdicts = analyse(trace(net, vector(), {}, "net"))[0]
    verdicts["0.weight"] = [replace(only(verdicts["0.weight"]), granularity="unit", units=8)]
    after, findings = checked(net, vector(), verdicts)
    assert only(after["0.weight"]).evidence == "refuted"
    assert findings[0].severity == "error"


def test_a_false_joint_set_is_contradicted():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    verdicts = analyse(trace(net, vector(), {}, "net"))[0]
    assert only(checked(net, vector(), verdicts)[0]["0.weight"]).evidence == "proved and confirmed"
    for name in ("2.weight", "2.bias"):
        verdicts[name] = [
            replace(only(verdicts[name]), status="jointly invariant", granularity="whole", joint="2", units=1,
                    evidence="proved", partners=())
        ]  # fmt: skip
    after, _ = checked(net, vector(), verdicts)
    assert {(only(after[n]).status, only(after[n]).joint) for n in ("2.weight", "2.bias")} == {("not invariant", "")}


def test_an_invariance_that_the_graph_cannot_show_is_found():
    torch.manual_seed(0)
    model, inputs, _ = ZOO["opaque_operation"]()
    after, findings = checked(model, inputs)
    row = only(after["a.weight"])
    assert (row.status, row.granularity, row.evidence) == ("invariant", "whole", "confirmed")
    assert "1 invariances found that the graph does not show" in findings[-1].message


def test_an_activation_that_never_saturates_at_the_start_fakes_nothing():
    """conv → BN → ReLU6 → conv → BN: at unit gains ReLU6 is ReLU, and the gain would look free."""
    torch.manual_seed(0)
    model, inputs, _ = ZOO["linear_bottleneck"]()
    after, _ = checked(model, inputs)
    assert only(after["bn1.weight"]).status == "not invariant"
    assert only(after["bn1.weight"]).evidence == "refuted"


class HandMade(nn.Module):
    """Norms written out with an eps in every form, float32 casts as in language models, and a padding row."""

    def __init__(self, eps):
        super().__init__()
        self.eps, self.embed = eps, nn.Embedding(10, 6, padding_idx=0)
        for name in "abcde":
            setattr(self, name, nn.Linear(6, 6, bias=False))
        self.out = nn.Linear(6, 3)

    def forward(self, i):
        x = self.embed(i).to(torch.float32).tanh()
        y = self.a(x.float())
        x = (y * torch.rsqrt(y.float().pow(2).mean(-1, keepdim=True) + self.eps)).to(torch.float32)
        y = self.b(x.tanh())
        x = y / (y.norm(dim=-1, keepdim=True) + 1e-5)
        y = self.c(x.tanh())
        x = F.normalize(y, dim=-1, eps=1e-4)
        y = self.d(x.tanh())
        x = F.layer_norm(y, (6,), eps=1e-3)
        y = self.e(x.tanh())
        x = (y - y.mean(-1, keepdim=True)) * (y.var(-1, keepdim=True) + 1e-3) ** -0.5
        return self.out(torch.nn.functional.dropout(x.tanh(), 0.5, self.training))


def test_eps_in_any_form_and_casts_do_not_blur_the_check():
    torch.manual_seed(0)
    model, inputs = HandMade(1e-3), (torch.arange(8).reshape(2, 4),)
    after, findings = checked(model, inputs)
    assert {only(after[f"{n}.weight"]).evidence for n in "abcde"} == {"proved and confirmed"}
    assert [f.code for f in findings] == ["numeric-check"]
    products = Probe(model, (inputs, {}), {}).products(POINTS[0], 0)
    assert all(p.dtype == torch.float64 for p in products.values())
    assert float(products["a.weight"].sum().abs() / products["a.weight"].abs().sum()) < 1e-12


def test_an_eps_that_cannot_be_reached_is_not_a_contradiction():
    def hidden(x):  # added in two steps: the first is not seen any more
        return x / ((x.square().mean(-1, keepdim=True) + 5e-4) + 5e-4).sqrt()

    torch.manual_seed(0)
    net = Net(lambda m, x: m.b(torch.tanh(hidden(m.a(x)))), a=nn.Linear(7, 8, bias=False), b=nn.Linear(8, 3))
    honest = Net(
        lambda m, x: m.b(torch.tanh(F.rms_norm(m.a(x), (8,)))), a=nn.Linear(7, 8, bias=False), b=nn.Linear(8, 3)
    )
    after, findings = checked(net, vector(), analyse(trace(honest, vector(), {}, "net"))[0])
    row = only(after["a.weight"])
    assert (row.status, row.evidence) == ("invariant", "proved")
    assert "an eps in the model's code" in row.reason
    assert "1 inconclusive" in findings[-1].message


def test_the_model_is_left_as_it_was():
    torch.manual_seed(0)
    model, inputs, _ = ZOO["conv_bias_batch_norm"]()
    model.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    checked(model, inputs)
    assert not any(m.training for m in model.modules())
    assert model[1].eps == 1e-5
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32


def test_tokens_reach_every_row_of_the_table():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(20, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))
    inputs = (torch.zeros(2, 4, dtype=torch.int64),)
    after, _ = checked(net, inputs)
    assert "reached" not in only(after["0.weight"]).reason
    few, _ = checked(nn.Sequential(nn.Embedding(99, 6), *net[1:]), inputs)
    assert "the numeric check reached 32 of 99 units" in only(few["0.weight"]).reason


def test_what_cannot_run_is_said_and_the_rest_stands():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm = nn.Linear(7, 8), nn.LayerNorm(8)

        def forward(self, x):
            if x.dtype == torch.float64:
                raise RuntimeError("only float32 here")
            return self.norm(self.a(x))

    model = Picky()
    before = analyse(trace(model, vector(), {}, "model"))[0]
    after, findings = checked(model, vector(), before)
    assert after == before
    assert (findings[0].code, findings[0].severity) == ("not-verified", "warning")
    assert "only float32 here" in findings[0].message


def test_a_norm_of_a_constant_is_no_counter_example():
    """One place per channel: InstanceNorm subtracts everything, and 0/0 would be the rest."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.Conv2d(4, 2, 1))
    verdicts = analyse(trace(net, (torch.randn(2, 3, 8, 8),), {}, "net"))[0]
    after, findings = checked(net, (torch.randn(2, 3, 4, 3),), verdicts)
    assert all(f.severity != "error" for f in findings)
    assert {v.status for v in after["0.weight"]} == {"invariant"}


# ---- through find_groups


def test_find_groups_verifies_at_the_checkpoint():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(7, 8, bias=False), nn.BatchNorm1d(8, eps=1e-5), nn.ReLU(), nn.Linear(8, 3))
    small = nn.Sequential(nn.Linear(7, 8, bias=False), nn.BatchNorm1d(8, eps=1e-5), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        small[0].weight.copy_(1e-2 * net[0].weight)

    def left(model):
        groups = find_groups(saved(model), net, vector(batch=64), verify=True)
        row = next(r for r in groups.parameters if r.parameter == "0.weight")
        assert row.evidence == "proved and confirmed"
        assert next(g for g in groups.groups if g.name == "0").evidence == "proved and confirmed"
        return float(row.reason.split("a residual of ")[1].split(" is")[0])

    assert left(net) < 1e-2 < left(small)


def test_a_model_that_cannot_be_traced_confirms_guesses():
    class Opaque(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
            self.late, self.norm, self.fc = nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5), nn.Linear(5, 2)

        def forward(self, x):
            if torch._C._len_torch_dispatch_stack() or type(x) is not torch.Tensor:
                raise RuntimeError("no tracing")
            h = torch.tanh(self.late(F.relu(self.bn(self.conv(x)))))
            return self.fc(self.norm(h).mean((2, 3)))

    torch.manual_seed(0)
    model = Opaque()
    with pytest.raises(UsageError, match="no tracing"):
        find_groups(run_of_model(model), model, torch.randn(3, 3, 8, 8))
    groups = find_groups(saved(model), model, torch.randn(3, 3, 8, 8), verify=True)
    rows = {r.parameter: (r.status, r.granularity, r.evidence) for r in groups.parameters}
    assert rows["conv.weight"] == ("invariant", "unit", "confirmed")
    assert rows["fc.weight"] == ("not invariant", "", "refuted")
    assert rows["late.weight"] == ("not invariant", "", "refuted")  # its name looks as if a norm followed
    assert next(f for f in groups.findings if f.code == "graph-not-traced").severity == "warning"
    assert groups.source == "names and shapes, checked with Opaque"


def test_there_must_be_a_model_and_room_for_it(monkeypatch):
    model = nn.Sequential(nn.Linear(7, 8), nn.LayerNorm(8))
    with pytest.raises(UsageError, match="--model"):
        find_groups(saved(model), verify=True)
    monkeypatch.setattr(verifying_run, "available_memory", lambda: 1000)
    groups = find_groups(saved(model), model, vector(), verify=True)
    finding = next(f for f in groups.findings if f.code == "not-verified")
    assert "memory" in finding.message
    assert {r.evidence for r in groups.parameters} <= {"proved", "not proved"}


def test_bfloat16_checkpoints_are_read_by_their_dtype():
    model = nn.Sequential(nn.Linear(7, 8, bias=False), nn.LayerNorm(8), nn.Linear(8, 3)).bfloat16()
    bits = {k: v.view(torch.int16).numpy().view(np.uint16) for k, v in model.state_dict().items()}
    tensors = {k: LazyTensor(tuple(b.shape), "bfloat16", lambda b=b: b.view(np.int16).copy()) for k, b in bits.items()}
    run = Run("run", (Checkpoint(1, "1.pt", "torch", "plain", tensors),), "file name", "optimizer steps")
    groups = find_groups(run, model.float(), vector(), verify=True)
    assert next(r for r in groups.parameters if r.parameter == "0.weight").evidence == "proved and confirmed"
