"""Decay rules: exact sums per update, what frameworks do, and which rule a clock follows."""

import numpy as np
import pytest
from schedule_runs import checkpoint, clock_table, codes, column, run, setting, ticking

from smd_analyze.errors import UsageError
from smd_analyze.schedule.decay_rules import ADAMC, CAUTIOUS, INDEPENDENT, RULES, TIED, USUAL
from smd_analyze.schedule.resolve import resolve_schedule
from smd_analyze.schedule.rule_fit import better_rule
from smd_analyze.schedule.settings import read_settings
from smd_analyze.schedule.velocity import rate_in_velocity

STEPS = (0, 100, 200, 300, 400)
COSINE = {"kind": "cosine", "total_steps": 500, "warmup_steps": 50}
TOLD = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1, "schedule": COSINE}


def rates(u):
    """η of update u under COSINE."""
    c = u - 1
    fall = 0.5 * (1 + np.cos(np.pi * np.clip((c - 50) / 450, 0, 1)))
    return 1e-3 * np.where(c < 50, c / 50, fall)


def plain(framework="plain torch", settings=(), steps=STEPS):
    return run(*(checkpoint(t, settings, framework=framework) for t in steps))


def sums(per_update):
    return [per_update(np.arange(a + 1, b + 1)).sum() for a, b in zip(STEPS, STEPS[1:], strict=False)]


EXPECTED = {
    "usual": lambda u: 0.1 * rates(u),
    "independent": lambda u: 0.1 + 0 * u,
    "tied": lambda u: 0.1 * rates(u) / 1e-3,
    "adamc": lambda u: 0.1 * rates(u) ** 2 / 1e-3,
}


@pytest.mark.parametrize("rule", EXPECTED)
def test_the_decay_of_every_update_is_summed_by_the_rule(rule):
    found = resolve_schedule(plain(), settings=TOLD | {"decay_rule": rule})
    for end in ("", "_low", "_high"):
        assert column(found, f"sum_decay{end}") == pytest.approx(sums(EXPECTED[rule]), rel=1e-4)
    assert column(found, "sum_learning_rate") == pytest.approx(sums(rates), rel=1e-9)
    assert column(found, "weight_decay") == [0.1] * 4


def test_cautious_decay_is_only_bounded():
    found = resolve_schedule(plain(), settings=TOLD | {"decay_rule": "cautious"})
    assert column(found, "sum_decay") == [None] * 4
    assert column(found, "sum_decay_low") == [0.0] * 4
    assert column(found, "sum_decay_high") == pytest.approx(sums(EXPECTED["usual"]), rel=1e-9)


def test_rules_have_short_names_and_names_in_full():
    for said in ("adamc", "AdamC", ADAMC):
        assert read_settings({"decay_rule": said}).values == {"decay_rule": ADAMC}
    assert {read_settings({"decay_rule": r}).values["decay_rule"] for r in RULES} == set(RULES)
    with pytest.raises(UsageError, match="tied"):
        read_settings({"decay_rule": "linear"})
    with pytest.raises(UsageError, match="rate_in_velocity"):
        read_settings({"rate_in_velocity": 1})
    assert read_settings({"groups": {"*": {"rate_in_velocity": True}}}).groups["*"] == {"rate_in_velocity": True}


def test_the_reference_of_a_warm_up_is_its_peak_even_if_no_checkpoint_saw_it():
    first = setting("learning_rate", 2e-3, kind="configured", applies="whole run", source="param_groups[0], initial_lr")
    points = [checkpoint(t, [setting("learning_rate", 1e-3), first]) for t in STEPS]
    told = {"optimizer": "adamw", "weight_decay": 0.1, "decay_rule": "tied"}
    assert column(resolve_schedule(run(*points), settings=told), "sum_decay") == pytest.approx([5.0] * 4)


@pytest.mark.parametrize(
    ("framework", "optimizer", "rule"),
    [
        ("keras", "SGDW", INDEPENDENT), ("keras", "AdamW", USUAL), ("plain torch", "AdamW", USUAL),
        ("plain torch", "SGDW", USUAL),
    ],
)  # fmt: skip
def test_addons_decay_is_not_multiplied_by_the_learning_rate(framework, optimizer, rule):
    told = [setting("optimizer", optimizer), setting("learning_rate", 0.1), setting("weight_decay", 1e-4)]
    found = resolve_schedule(plain(framework, told))
    assert column(found, "decay_rule") == [rule] * 4
    assert column(found, "sum_decay") == pytest.approx([100 * 1e-4 * (1 if rule == INDEPENDENT else 0.1)] * 4)


@pytest.mark.parametrize(
    ("framework", "optimizer", "inside"),
    [
        ("keras", "SGD", True), ("caffe", "", True), ("mxnet", "SGD", True), ("plain torch", "SGD", False),
        ("flax", "", False), ("tensorflow", "Momentum", False), ("tensorflow", "SGD", True), ("tensorflow", "", None),
        ("onnx", "SGD", None),
    ],
)  # fmt: skip
def test_frameworks_keep_the_learning_rate_inside_or_outside_the_velocity(framework, optimizer, inside):
    assert rate_in_velocity(framework, optimizer) is inside


def test_the_velocitys_form_is_a_column_and_the_callers_word_wins():
    told = [setting("optimizer", "SGD"), setting("momentum", 0.9)]
    assert column(resolve_schedule(plain("keras", told)), "rate_in_velocity") == [True] * 4
    found = resolve_schedule(plain("keras", told), settings={"rate_in_velocity": False})
    assert column(found, "rate_in_velocity") == [False] * 4
    assert column(resolve_schedule(plain("keras", [setting("optimizer", "Adam")])), "rate_in_velocity") == [None] * 4


def shapes():
    return {
        USUAL: sums(rates), INDEPENDENT: sums(lambda u: 1.0 + 0 * u), TIED: sums(lambda u: rates(u) / 1e-3),
        ADAMC: sums(lambda u: rates(u) ** 2 / 1e-3),
    }  # fmt: skip


@pytest.mark.parametrize(("true", "configured"), [(ADAMC, USUAL), (INDEPENDENT, USUAL), (USUAL, INDEPENDENT)])
def test_the_rule_that_a_clock_follows_is_found(true, configured):
    clock = 0.3 * np.array(shapes()[true])
    found = better_rule(clock, 0.999 * clock, 1.001 * clock, shapes(), configured)
    assert found is not None
    assert (found.rule, found.intervals) == (true, 4)
    assert found.factor == pytest.approx(0.3)
    assert found.configured_misfit > 0.05 > found.misfit


def test_no_rule_is_named_without_reason():
    clock = 0.3 * np.array(shapes()[USUAL])
    sharp, dull = (0.999 * clock, 1.001 * clock), (0.3 * clock, 1.7 * clock)
    assert better_rule(clock, sharp[0], sharp[1], shapes(), USUAL) is None
    other = 0.3 * np.array(shapes()[ADAMC])
    few = {k: v[:3] for k, v in shapes().items()}
    assert better_rule(other[:3], 0.999 * other[:3], 1.001 * other[:3], few, USUAL) is None
    assert better_rule(other, dull[0], dull[1], shapes(), USUAL) is None  # too wide to tell
    odd = clock * np.array([1.0, 1.3, 0.8, 1.1])
    assert better_rule(odd, 0.999 * odd, 1.001 * odd, shapes(), USUAL) is None  # none fits
    flat = {USUAL: [0.1] * 4, INDEPENDENT: [100.0] * 4, ADAMC: [0.1] * 4}
    assert better_rule(odd, 0.999 * odd, 1.001 * odd, flat, USUAL) is None


def test_a_clock_names_the_rule_in_a_finding():
    per_step = np.array(sums(EXPECTED["adamc"])) / 100
    table = clock_table(*ticking("conv.weight", STEPS, -np.log1p(-per_step), "unit 3"))
    found = resolve_schedule(plain(), table, TOLD)
    assert codes(found)[:2] == ["decay-rule", "clock-disagrees"]
    assert 'decay_rule = "adamc"' in found.findings[0].remedy
    assert "4 intervals" in found.findings[0].message
    assert "lr²/lr_max" in found.findings[1].message
    assert column(found, "sum_decay") == pytest.approx(sums(EXPECTED["adamc"]), rel=1e-3)
    right = resolve_schedule(plain(), table, TOLD | {"decay_rule": "adamc"})
    assert {"decay-rule", "clock-disagrees"}.isdisjoint(codes(right))


def test_cautious_decay_and_a_clock():
    table = clock_table(*ticking("conv.weight", STEPS, [2e-5] * 4, "unit 3"))
    found = resolve_schedule(
        plain(), table, {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1, "decay_rule": CAUTIOUS}
    )
    assert column(found, "sum_decay") == pytest.approx([2e-3] * 4, rel=1e-4)
