"""Which hyperparameter counts, and which optimizers' states tell the direction."""

import numpy as np
import pytest
from handmade_runs import checkpoint, in_memory

from smd_analyze.records.run import Setting
from smd_analyze.statistics.optimizers import Direction, direction, setting


def made(settings, state):
    return checkpoint(1, "here", {}, settings, {"w": in_memory(state)})


def test_a_groups_own_setting_wins_and_what_is_in_force():
    rows = [
        Setting("eps", 1.0, None, "", "in force", "a"),
        Setting("eps", 2.0, None, "decay", "in force", "a"),
        Setting("eps", 3.0, None, "other", "in force", "a"),
        Setting("beta1", 0.5, None, "decay", "configured", "a"),
        Setting("beta1", 0.9, None, "", "in force", "a"),
    ]
    here = made(rows, {})
    assert setting(here, "eps", "decay") == 2
    assert setting(here, "eps", "third") == 1
    assert setting(here, "beta1", "decay") == 0.9
    assert setting(here, "lr", "decay") is None


def numbers(**values):
    return [Setting(name, value, None, "", "in force", "a") for name, value in values.items()]


def named(name):
    return [Setting("optimizer", None, name, "", "in force", "a")]


ADAM = {"exp_avg": np.ones(3), "exp_avg_sq": np.ones(3), "step": np.array(2.0)}


def test_adam_is_corrected_by_its_own_step():
    found = direction(made(named("AdamW") + numbers(beta1=0.9, beta2=0.99, eps=1e-8), ADAM), "w", "")
    assert isinstance(found, Direction)
    assert found.scale == pytest.approx(1 / (1 - 0.81))
    assert found.root == pytest.approx((1 - 0.99**2) ** -0.5)


@pytest.mark.parametrize(
    ("settings", "state", "words"),
    [
        (named("adam"), ADAM, "cannot be corrected"),
        (named("radam") + numbers(beta1=0.9, beta2=0.99, eps=1e-8), ADAM, "radam"),
        (named("muon"), {"momentum_buffer": np.ones(3)}, "muon"),
        (named("lion"), {"exp_avg": np.ones(3)}, "lion"),
        (named("sgd") + numbers(nesterov=1), {"momentum_buffer": np.ones(3)}, "Nesterov"),
    ],
)
def test_what_cannot_be_told_is_said(settings, state, words):
    assert words in str(direction(made(settings, state), "w", ""))


def test_no_state_is_no_direction():
    assert direction(made(named("sgd"), {}), "w", "") is None
    assert direction(made(named("sgd"), {"step": np.array(3.0)}), "w", "") is None
