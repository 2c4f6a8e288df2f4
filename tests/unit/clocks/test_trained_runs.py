"""From files to clocks: nets trained under every optimizer, saved as weights only, read as a user's would be."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from clock_studies import Claim, claims, find, found_in, looked_at
from safetensors.numpy import save_file
from trained_nets import CASES, RULES, Case, Mlp, run, smoothed, train, vector

from smd_analyze import decay_formulas
from smd_analyze.records.clocks import Clocks

WITH_CLOCKS = [name for name, case in CASES.items() if case.clocks]
LISTED = 8  # slices of one tensor that the table lists one by one
EXACT = "reproduced in every bit"


@cache
def found(name: str) -> Clocks:
    return found_in(run(name))


def claimed(name: str) -> list[Claim]:
    return claims(run(name), found(name))


@pytest.mark.parametrize("name", WITH_CLOCKS)
def test_every_clock_is_found(name):
    case = CASES[name]
    rows = found(name).table.filter(found(name).table["kind"] == "moving")
    seen = set(rows.select("parameter", "functional").iter_rows())
    slices = {c for c in case.clocks if not c[1].startswith(("sum", "within", "whole"))}
    assert set(case.clocks) - slices <= seen
    for tensor in {p for p, _ in slices}:
        of = {c for c in slices if c[0] == tensor}
        assert len(of & seen) >= min(LISTED, len(of)), tensor
    assert found(name).why_none == ""


@pytest.mark.parametrize("name", WITH_CLOCKS)
def test_the_schedule_is_read_off_the_weights(name):
    """Rates before and after the drop, as the table has them, with the settings known to nobody."""
    case = CASES[name]
    rule = RULES[case.rule]
    form = {k: v for k, v in rule.form.items() if k != "rate_in_velocity"}
    for eta, first, last in ((case.rate, 90, 360), (case.rate / 10, 480, 600)):
        x = eta * case.decay
        expected = decay_formulas.decoupled_rate(x) if rule.decoupled else decay_formulas.coupled_rate(x, **form)
        rows = found(name).table.filter(
            (found(name).table["step_from"] >= first) & (found(name).table["step_to"] <= last)
        )
        assert rows["decay_per_step"].median() == pytest.approx(float(expected), rel=3e-5)


@pytest.mark.parametrize("name", WITH_CLOCKS)
def test_claims_are_right(name):
    """None is off by more than 2 % of itself, most by far less: also of slices that the case does not name."""
    errors = np.array([c.rate / c.truth - 1 for c in claimed(name) if c.kind == "moving"])
    assert np.abs(errors).max() < 5e-3
    assert np.median(np.abs(errors)) < 3e-5


def test_intervals_hold():
    """Nominal 95 %, over all cases; and they are not wide: four self-calibrated deviations and the floors."""
    every = [c for name in WITH_CLOCKS for c in claimed(name) if c.kind == "moving"]
    assert len(every) > 2000
    assert np.mean([c.covered for c in every]) >= 0.93
    for words in (("sum", "within"), ("unit", "input", "index")):
        of = [c for c in every if c.functional.startswith(words)]
        assert np.mean([c.covered for c in of]) >= 0.92
        half = np.array([(c.high - c.low) / 2 for c in of])
        sd = np.array([c.calibrated for c in of]) / 1.96
        assert np.median(half / (4 * sd + 1.96 * 1.25 * 2.0**-30)) <= 1


@pytest.mark.parametrize("name", ["tokens, AdamW", "MLP, Lion", "MLP, SGDW", "padded, AdamW", "MLP, Muon + AdamW"])
def test_decoupled_decay_is_reproduced_in_every_bit(name):
    case = CASES[name]
    rows = found(name).table
    proved = rows.filter(rows["evidence"].str.contains(EXACT) & (rows["step_to"] <= 360))
    assert proved.height > 10
    exact = float(decay_formulas.decoupled_rate(case.rate * case.decay))
    np.testing.assert_allclose(proved["decay_per_step"].to_numpy(), exact, rtol=1e-9)


@pytest.mark.parametrize("name", ["MLP, heavy ball, clipped", "tokens, Nesterov", "padded, heavy ball"])
def test_decay_through_momentum_is_not_certified(name):
    assert not found(name).table["evidence"].str.contains(EXACT).any()


def test_adam_with_l2_has_no_clock_and_says_so():
    clocks = found("MLP, Adam + L2")
    assert clocks.table.filter(clocks.table["kind"] == "moving").is_empty()
    assert clocks.why_none


def test_without_decay_sums_rest():
    """λ = 0 under heavy ball: the class sum stays, and that is a result."""
    trained = train(replace(CASES["MLP, heavy ball, clipped"], decay=0.0, drop=None))
    clocks = found_in(trained)
    rows = clocks.table.filter(clocks.table["parameter"] == "c.weight")
    assert not rows.is_empty()
    assert set(rows["kind"]) <= {"no decay", "at most"}
    assert (rows["decay_per_step_high"] < 1e-5).all()
    assert clocks.table.filter(clocks.table["kind"] == "moving").is_empty()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_copies(dtype):
    """What is claimed of a 16-bit copy is right, to the copy's rounding."""
    trained = run("MLP, heavy ball, clipped")
    of = [c for c in claims(trained, found_in(trained, dtype)) if c.kind == "moving"]
    assert of, "class sums and dead columns survive in 16 bits"
    assert np.median([abs(c.rate / c.truth - 1) for c in of]) < 0.03
    assert np.mean([c.covered for c in of]) >= 0.93


def noisy(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """No pixel is dead."""
    return smoothed(net, x + 0.05 * torch.randn_like(x), y)


@pytest.mark.parametrize("rule", [("AdamW", 3e-3, 0.1), ("Adam + L2", 3e-3, 1e-2), ("Lion", 3e-4, 1.0)])
def test_nets_without_clocks_get_none(rule):
    """But for units that are dead for a while, which do run as clocks: of those every gradient was exactly zero."""
    case = Case(Mlp, *rule, loss=noisy)
    felt: dict[str, list[np.ndarray]] = {}

    def remember(net: torch.nn.Module, t: int) -> None:
        for name, p in net.named_parameters():
            past = felt.setdefault(name, [])
            if t % case.every == 0:
                past.append(np.zeros(p.shape, bool))
            assert p.grad is not None
            past[-1] |= p.grad.numpy() != 0

    trained = train(case, 11, remember)
    clocks = found_in(trained)
    assert looked_at(clocks) > 200
    of = claims(trained, clocks)
    assert all(RULES[rule[0]].decoupled and abs(c.rate / c.truth - 1) < 1e-3 for c in of)
    for c in of:
        for gradient in felt[c.parameter][slice(*c.interval)]:
            assert c.functional.startswith(("unit", "input"))
            assert not vector({c.parameter: gradient}, c.parameter, c.functional).any(), c


@pytest.mark.parametrize("size", [1e-2, 1e-4, 1e-6, 3e-8])
@pytest.mark.parametrize("pull", [0.0, 1e-3])
def test_random_walks_get_none(tmp_path, size, pull):
    rng = np.random.default_rng(int(1e9 * size + 1e3 * pull))
    w = {"w": 0.1 * rng.standard_normal((96, 64)), "k": 0.1 * rng.standard_normal((32, 16, 3, 3)),
         "e": 0.1 * rng.standard_normal((200, 24)), "b": 0.1 * rng.standard_normal(64)}  # fmt: skip
    for step in range(12):
        save_file({n: v.astype(np.float32) for n, v in w.items()}, tmp_path / f"step_{step}.safetensors")
        w = {n: (1 - pull) * v + size * rng.standard_normal(v.shape) for n, v in w.items()}
    clocks = find(tmp_path)
    assert looked_at(clocks) > 400
    moving = clocks.table.filter(clocks.table["kind"] == "moving")
    if pull < 1e3 * size:
        assert moving.is_empty()
    else:  # next to no noise: every direction runs like a clock, and its rate is the decay's
        off = moving["decay_per_step"] / -np.log1p(-pull) - 1
        assert (off.abs() < 1e-3).all()
