import json

import numpy as np
import pytest
from schedule_runs import checkpoint, codes, column, run, scheduler, setting, sgd

from smd_analyze.schedule import curves
from smd_analyze.schedule.resolve import resolve_schedule

STEPS = 40


def torch_rates(build, steps=STEPS):
    """Learning rates of every update, and (scheduler state, next learning rate) after each, from torch itself."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    schedule = build(torch.optim.lr_scheduler, optimizer)
    rates, after = [], []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        after.append((schedule.state_dict(), optimizer.param_groups[0]["lr"]))
    return np.array(rates), after


def flat(state):
    """A scheduler's numbers and texts as loading names them: what is no number or word becomes JSON."""
    kept = {}
    for key, value in state.items():
        if key == "_anneal_func_type":
            kept[key] = value
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            kept[key] = float(value)
        elif key in ("milestones", "_schedule_phases", "base_lrs"):
            kept[key] = json.dumps(dict(value) if hasattr(value, "elements") else value)
    return kept


BUILDERS = {
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [7, 19, 19], gamma=0.3),
    "StepLR": lambda s, o: s.StepLR(o, 9, gamma=0.5),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.93),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 50, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 5, T_mult=2, eta_min=0.001),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.2, 0.9, total_iters=30),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.25, total_iters=13),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, total_iters=60, power=2.0),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 0.5, total_steps=60),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_torch_schedulers_are_recovered_step_by_step(kind):
    rates, after = torch_rates(BUILDERS[kind])
    saved = [10, 18, 26, 40]
    points = [
        checkpoint(t, sgd(after[t - 1][1]) + scheduler(kind, **flat(after[t - 1][0]))) for t in saved
    ]  # fmt: skip
    found = resolve_schedule(run(*points))
    assert codes(found) == []
    for a, b, total, low, high in zip(
        saved, saved[1:], column(found, "sum_learning_rate"), column(found, "sum_learning_rate_low"),
        column(found, "sum_learning_rate_high"), strict=False,
    ):  # fmt: skip
        assert total == pytest.approx(rates[a:b].sum(), rel=1e-6)
        assert low == high == pytest.approx(total)
    assert column(found, "learning_rate_last") == pytest.approx([rates[b - 1] for b in saved[1:]])


def test_a_scheduler_called_once_an_epoch():
    rates = [(0, 0.1, 0), (100, 0.1, 2), (200, 0.01, 4), (500, 0.001, 10)]
    points = [
        checkpoint(t, sgd(lr) + scheduler("MultiStepLR", c, milestones='{"3": 1, "8": 1}', gamma=0.1))
        for t, lr, c in rates
    ]
    found = resolve_schedule(run(*points))
    assert column(found, "sum_learning_rate") == pytest.approx([10, 5.5, 2.1])
    assert column(found, "sum_decay") == pytest.approx([5e-3, 2.75e-3, 1.05e-3])
    assert column(found, "learning_rate_changes") == [False, True, True]
    assert "MultiStepLR" in column(found, "source")[0]


def test_a_scheduler_that_misses_the_saved_rates_is_not_used():
    points = [
        checkpoint(t, sgd(lr) + scheduler("ExponentialLR", t, gamma=0.5)) for t, lr in ((0, 0.1), (10, 0.1), (20, 0.09))
    ]
    found = resolve_schedule(run(*points))
    assert "schedule-state-disagrees" in codes(found)
    assert column(found, "sum_learning_rate")[0] == pytest.approx(1.0)


def test_an_unknown_scheduler_leaves_the_saved_rates():
    points = [
        checkpoint(t, [*sgd(lr), setting("schedule", "LambdaLR"), setting("schedule.last_epoch", float(t))])
        for t, lr in ((0, 0.1), (10, 0.08), (20, 0.06), (30, 0.04))
    ]
    found = resolve_schedule(run(*points))
    assert codes(found) == []
    assert column(found, "sum_learning_rate")[1] == pytest.approx(0.71, abs=0.005)


def test_counts_between_epochs_bound_the_epoch():
    candidates = curves.counts([110, 250], [1, 2])  # 83.3 < steps in an epoch ≤ 110
    u = np.array([111.0, 251.0])  # updates whose learning rate the checkpoints saved
    assert [list(count(u)) for count in candidates] == [[1, 2]] * 3
    ends = [int(count(np.array([221.0]))[0]) for count in candidates]
    assert ends == [2, 2, 2]
    assert [int(c(np.array([331.0]))[0]) for c in candidates] == [3, 3, 3]
    assert {int(c(np.array([100.0]))[0]) for c in candidates} == {0, 1}
    assert curves.counts([100, 200], [1, 5]) == []
    assert curves.counts([], []) == []


def test_broken_state_is_no_curve():
    assert curves.shape("MultiStepLR", {"milestones": "{", "gamma": 0.1}) is None
    assert curves.shape("StepLR", {"gamma": 0.1}) is None
    assert curves.shape("NoSuchLR", {}) is None
