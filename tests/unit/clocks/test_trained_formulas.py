"""Clocks of really trained nets against the formulas: what weights alone say, and what the optimizer must do."""

import numpy as np
import pytest
from trained_nets import CASES, DEAD_PIXELS, DROP, RULES, predicted, run, shrinkage, turning, vector

from smd_analyze import decay_formulas

WITH_CLOCKS = [name for name, case in CASES.items() if case.clocks]


@pytest.mark.parametrize("name", WITH_CLOCKS)
def test_every_clock_runs_at_the_predicted_rate(name):
    """To 2e-5 before the learning rate drops, 3e-3 at a tenth of it (rates down to 1e-5 per update and below)."""
    expected = predicted(CASES[name])
    for clock in CASES[name].clocks:
        ratio = shrinkage(run(name), *clock) / expected
        assert ratio[2:12].mean() == pytest.approx(1, abs=2e-5), clock
        np.testing.assert_allclose(ratio[:13], 1, atol=1e-3, err_msg=str(clock))
        np.testing.assert_allclose(ratio[13:], 1, atol=5e-3, err_msg=str(clock))
        assert turning(run(name), *clock).max() < 1e-10, clock


@pytest.mark.parametrize("name", WITH_CLOCKS)
def test_the_drop_is_located_to_the_update(name):
    """The learning rate drops after 372 updates; checkpoints are 30 apart."""
    case = CASES[name]
    form = RULES[case.rule].form
    late = decay_formulas.velocity_lag(form["momentum"]) if form.get("rate_in_velocity") else 0
    for clock in case.clocks:
        seen = shrinkage(run(name), *clock) / case.every
        both = seen[12:14].mean()  # two intervals, so that an old velocity has died out at their end
        at = 360 + 60 * decay_formulas.drop_position(both, seen[2:12].mean(), seen[15:].mean()) - late
        assert at == pytest.approx(DROP, abs=0.3), clock


def test_settled_rates_are_those_of_the_recursion():
    for name in WITH_CLOCKS:
        case = CASES[name]
        rule = RULES[case.rule]
        form = {k: v for k, v in rule.form.items() if k != "rate_in_velocity"}
        x = case.rate * case.decay
        rate = decay_formulas.decoupled_rate(x) if rule.decoupled else decay_formulas.coupled_rate(x, **form)
        assert predicted(case)[10] / case.every == pytest.approx(float(rate), rel=1e-5)
        back = decay_formulas.decay_of(rate, decoupled=rule.decoupled, **form)
        assert back == pytest.approx(x, rel=3e-4 if rule.decoupled else 1e-12)  # fp32 holds 1 − ηλ to 2⁻²⁵


@pytest.mark.parametrize("name", ["MLP, Lion", "padded, AdamW", "two classes, AdamW"])
def test_sums_of_three_rows_and_more_are_no_clocks_under_elementwise_rules(name):
    for clock in (("a.weight", "sum over units"), ("b.weight", "sum over units"), ("c.weight", "sum over units")):
        if name.startswith("padded"):
            clock = ("fc.weight", "sum over units")
        if clock not in CASES[name].clocks:
            assert turning(run(name), *clock)[2:].max() > 1e-5, clock


def test_two_class_sums_break_under_coupled_decay():
    """Adam with L2: the two gradients are opposite, the two λw are not."""
    sums = turning(run("MLP, Adam + L2"), "c.weight", "sum over units")
    assert sums[2:].min() > 1e-6


def test_adam_with_l2_moves_dead_elements_by_the_learning_rate():
    trained = run("MLP, Adam + L2")
    case = trained.case
    for pixel in DEAD_PIXELS:
        first, last = (np.abs(vector(trained.weights[i], "a.weight", f"input {pixel}")) for i in (0, 1))
        alive = last > 10 * case.rate  # the others have reached zero
        assert alive.sum() > 9
        assert np.ptp(first[alive]) > 0.5 * first[alive].max()
        slope = (first - last)[alive] / case.every
        np.testing.assert_allclose(slope, decay_formulas.adam_l2_slope(1.0, case.rate), rtol=0.15)


def test_the_replayed_bits_are_the_saved_ones():
    """AdamW's dead slices: fl32(w · fl32(1−ηλ)), as often as there were updates; one update off leaves few alike."""
    trained = run("tokens, AdamW")
    factor = np.float32(decay_formulas.fp32_factor(trained.case.rate * trained.case.decay))
    alike = []
    for updates in (30, 29, 31):
        w = trained.weights[0]["token.weight"][17:].copy()
        for _ in range(updates):
            w *= factor
        alike.append((w == trained.weights[1]["token.weight"][17:]).mean())
    assert alike[0] == 1
    assert max(alike[1:]) < 0.2


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 10), ("bfloat16", 7)])
def test_sixteen_bit_copies_of_fp32_weights_keep_the_clock(dtype, bits):
    """Saved in half precision, class sums and dead slices still tell the rate, to the copy's own rounding."""
    torch = pytest.importorskip("torch")
    trained = run("MLP, heavy ball, clipped")
    expected = predicted(trained.case)
    for clock in (("b.weight", "sum over units"), ("a.weight", "input 32")):
        lengths = []
        for weights in (trained.weights[2], trained.weights[12]):
            copy = {k: torch.from_numpy(v).to(getattr(torch, dtype)).float().numpy() for k, v in weights.items()}
            lengths.append(np.linalg.norm(vector(copy, *clock)))
        seen = -np.log(lengths[1] / lengths[0])
        assert seen == pytest.approx(expected[2:12].sum(), abs=4 * 2.0**-bits), clock
