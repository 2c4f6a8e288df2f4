"""How much of a scale a batch normalization lets through, read off its running variance."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from invariance_runs import run_of_model
from torch import nn

from smd_analyze.errors import DamagedFile
from smd_analyze.invariance.epsilon import percent, up_to_epsilon
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.verdicts import Verdict

IMAGE = (torch.randn(4, 3, 6, 6),)


def network(eps=1e-5):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=eps), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip


def run_with(variance, model=None, prefix="", dtype="float32"):
    """One checkpoint whose running variance has these numbers."""
    run = run_of_model(model or network(), prefix=prefix)
    (last,) = run.checkpoints
    numbers = np.asarray(variance) if dtype == "bfloat16" else np.asarray(variance, dtype)
    buffers = {
        n: replace(t, read=lambda: numbers, dtype=dtype) if n.endswith("running_var") else t
        for n, t in last.buffers.items()
    }
    return replace(run, checkpoints=(replace(last, buffers=buffers),))


def judged(run, model=None):
    groups = find_groups(run, model or network(), IMAGE)
    (row,) = [r for r in groups.parameters if r.parameter.endswith("0.weight")]
    return row, [f for f in groups.findings if f.code.startswith("epsilon")]


def test_delta_is_the_derivative_of_the_output_by_the_scale():
    """δ = ε/(s + ε) is 1 − dlog‖y‖/dlog a, here of a network that is run."""
    torch.manual_seed(0)
    eps, conv = 1e-2, nn.Conv2d(3, 1, 3, bias=False).double()
    norm = nn.BatchNorm2d(1, eps=eps, affine=False, momentum=1.0).double()
    x, a = torch.randn(8, 3, 6, 6, dtype=torch.float64), torch.ones((), dtype=torch.float64, requires_grad=True)
    h = torch.nn.functional.conv2d(x, 0.05 * a * conv.weight)
    (slope,) = torch.autograd.grad(norm(h).norm().log(), a)
    s = float(h.detach().var(unbiased=False))
    model = network(eps)
    row, _ = judged(run_with([s] * 4, model), model)
    assert f"δ = {percent(float(slope))} (median)" in row.reason
    assert float(slope) == pytest.approx(eps / (s + eps))


def test_small_epsilon_is_told_and_no_finding():
    row, findings = judged(run_with([1.0, 2.0, 0.5, 0.1]))
    assert row.status == "invariant"
    assert row.reason.endswith("divides its scale out; up to ε: δ = 0.0015 % (median), 0.01 % (largest)")
    assert findings == []


def test_more_than_a_percent_is_a_warning():
    row, (finding,) = judged(run_with([3e-4] * 4))
    assert (row.status, finding.severity, finding.where) == ("invariant", "warning", "1")
    assert "more than 1 %" in finding.message
    assert "3.2 %" in finding.message


def test_more_than_a_tenth_is_not_effectively_invariant():
    row, (finding,) = judged(run_with([3e-6] * 4))
    assert (row.status, row.granularity, row.evidence) == ("not invariant", "", "not proved")
    assert row.reason.startswith("not effectively invariant: 1 (BatchNorm2d)")
    assert "more than 10 %" in finding.message


def test_a_few_channels_that_hardly_vary_are_a_note():
    row, (finding,) = judged(run_with([1.0, 1.0, 1.0, 0.0]))
    assert (row.status, finding.severity) == ("invariant", "note")
    assert "100 % (largest)" in row.reason


def test_prefixes_and_half_precision():
    row, _ = judged(run_with([1.0] * 4, prefix="module."))
    assert "δ = 0.001 %" in row.reason
    bits = np.full(4, 0x3F80, np.uint16)  # 1.0
    row, _ = judged(run_with(bits, dtype="bfloat16"))
    assert "δ = 0.001 %" in row.reason


def test_a_variance_that_cannot_be_read_leaves_the_verdict():
    def damaged():
        raise DamagedFile("cut short")

    run = run_with([1.0] * 4)
    (last,) = run.checkpoints
    buffers = {n: replace(t, read=damaged) for n, t in last.buffers.items()}
    row, (finding,) = judged(replace(run, checkpoints=(replace(last, buffers=buffers),)))
    assert (row.status, finding.code) == ("invariant", "epsilon-unknown")
    assert row.reason.endswith("up to its ε = 1e-05")


def test_other_norms_name_their_epsilon_or_are_exact():
    model = nn.Sequential(nn.Linear(6, 4, bias=False), nn.LayerNorm(4, eps=1e-6), nn.Tanh(), nn.Linear(4, 2))
    groups = find_groups(run_of_model(model), model, (torch.randn(3, 6),))
    assert groups.parameters[0].reason == "1 (LayerNorm) divides its scale out, up to its ε = 1e-06"
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, 2))
    groups = find_groups(run_of_model(normed), normed, (torch.randn(3, 6),))
    (row,) = [r for r in groups.parameters if r.status == "invariant"]
    assert row.reason.endswith("divides its scale out, exactly")


def test_a_set_keeps_its_verdict():
    rows = [Verdict("w", "conv", "jointly invariant", "it cancels", "proved", "whole", joint="w", norm="1", eps=1e-5)]
    (row,), (finding,) = up_to_epsilon(rows, run_with([1e-7] * 4))
    assert row.status == "jointly invariant"
    assert finding.severity == "warning"
