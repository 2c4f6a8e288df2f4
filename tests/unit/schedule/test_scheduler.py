"""Curves of saved schedulers against torch's own, update by update, wherever in the epoch the checkpoint was saved."""

import json
import math
import warnings
from collections import Counter

import pytest
import torch
from schedule_runs import checkpoint, column, run, setting, sgd

from smd_analyze.loading.settings.saved import schedule_settings
from smd_analyze.schedule.resolve import resolve_schedule

S = torch.optim.lr_scheduler
PER_EPOCH = 5
SCHEDULERS = {
    "StepLR": lambda o: S.StepLR(o, 7, 0.5),
    "MultiStepLR": lambda o: S.MultiStepLR(o, [5, 11, 70, 130]),
    "CosineAnnealingLR": lambda o: S.CosineAnnealingLR(o, 40, 1e-3),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 6, 2),
    "CyclicLR": lambda o: S.CyclicLR(o, 0.01, 0.1, 7, 5),
    "CyclicLR triangular2": lambda o: S.CyclicLR(o, 0.01, 0.1, 7, mode="triangular2"),
    "OneCycleLR": lambda o: S.OneCycleLR(o, 0.3, 200, pct_start=0.1),
    "PolynomialLR": lambda o: S.PolynomialLR(o, 200, 2.0),
    "SequentialLR": lambda o: S.SequentialLR(
        o, [S.LinearLR(o, 0.1, total_iters=4), S.CosineAnnealingLR(o, 30, 1e-3), S.ConstantLR(o, 0.05, 99)], [4, 20]
    ),
    "ChainedScheduler": lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.1, 9), S.ExponentialLR(o, 0.95)]),
}  # fmt: skip


def trained(make, per_epoch, save, epochs=40):
    """(learning rate of every update, checkpoints). `save`: after every 17 updates, or with every fourth epoch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(optimizer)
    rates, points = [], []

    def keep():
        state = {k: dict(v) if isinstance(v, Counter) else v for k, v in scheduler.state_dict().items()}
        rate = [setting("learning_rate", optimizer.param_groups[0]["lr"])]
        points.append(checkpoint(len(rates), sgd(0.1)[1:] + rate + schedule_settings(state)))

    for epoch in range(epochs):
        for _ in range(PER_EPOCH):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if not per_epoch:
                scheduler.step()
            if save == 17 and len(rates) % 17 == 0:
                keep()
        if save == "before" and epoch % 4 == 3:
            keep()
        if per_epoch:
            scheduler.step()
        if save == "after" and epoch % 4 == 3:
            keep()
    return rates, run(*points)


@pytest.mark.filterwarnings("ignore:.*epoch parameter.*")
@pytest.mark.parametrize("save", [17, "before", "after"])
@pytest.mark.parametrize("per_epoch", [True, False])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_sum_of_every_interval_is_the_schedulers(name, per_epoch, save):
    rates, made = trained(SCHEDULERS[name], per_epoch, save)
    found = resolve_schedule(made)
    steps = [c.step for c in made.checkpoints]
    sums = [math.fsum(rates[a:b]) for a, b in zip(steps, steps[1:], strict=False)]
    for end in ("", "_low", "_high"):
        assert column(found, f"sum_learning_rate{end}") == pytest.approx(sums, rel=1e-6)
    assert name.split()[0] in column(found, "source")[0]


@pytest.mark.parametrize("save", ["before", "after"])
def test_an_unknown_function_called_once_an_epoch_goes_in_stairs(save):
    """LambdaLR says nothing of its function, but its count says when it can have changed the rate."""

    rates, made = trained(lambda o: S.LambdaLR(o, lambda e: 0.9**e), True, save)
    found = resolve_schedule(made)
    steps = [c.step for c in made.checkpoints]
    sums = [math.fsum(rates[a:b]) for a, b in zip(steps, steps[1:], strict=False)]
    low, high = column(found, "sum_learning_rate_low"), column(found, "sum_learning_rate_high")
    assert all(a <= t * (1 + 1e-9) <= b * (1 + 2e-9) for a, t, b in zip(low, sums, high, strict=True))
    assert column(found, "sum_learning_rate") == pytest.approx(sums, rel=0.02)
    assert "joined between the checkpoints" in column(found, "source")[0]


def test_a_peak_between_checkpoints_is_within_the_bracket():
    """A warm-up that ends between two checkpoints is seen in neither; the optimizer's initial_lr bounds it."""
    rate = lambda c: 0.1 * (c + 1) / 20 if c < 20 else 0.1 * (1 - (c - 20) / 180)  # noqa: E731
    first = setting("learning_rate", 0.1, kind="configured", applies="whole run", source="param_groups[0], initial_lr")
    points = [checkpoint(t, [*sgd(rate(t)), first]) for t in (12, 40, 80, 120)]
    found = resolve_schedule(run(*points))
    total = math.fsum(rate(c) for c in range(12, 40))
    low, high = column(found, "sum_learning_rate_low")[0], column(found, "sum_learning_rate_high")[0]
    assert low < total < high < 28 * 0.1 + 1e-9


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup", "inverse_sqrt", "SchedulerType.COSINE"])
def test_transformers_schedules_by_the_trainers_name(kind):
    formula = {
        "linear": lambda c: (200 - c) / 180,
        "constant_with_warmup": lambda c: 1.0,
        "inverse_sqrt": lambda c: math.sqrt(20 / c),
    }.get(kind, lambda c: 0.5 * (1 + math.cos(math.pi * (c - 20) / 180)))
    rates = [0.1 * (c / 20 if c < 20 else formula(c)) for c in range(201)]
    state = [setting("schedule", f"transformers {kind}", kind="inferred")]
    state += [setting("schedule.warmup_steps", 20.0), setting("schedule.max_steps", 200.0)]
    points = [
        checkpoint(t, [*sgd(rates[t]), *state, setting("schedule.last_epoch", float(t))]) for t in (5, 10, 60, 120, 199)
    ]
    found = resolve_schedule(run(*points))
    steps = [c.step for c in run(*points).checkpoints]
    sums = [math.fsum(rates[a:b]) for a, b in zip(steps, steps[1:], strict=False)]
    assert column(found, "sum_learning_rate") == pytest.approx(sums, rel=1e-9)


def test_a_schedulers_private_parts_are_kept_as_plain_data():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    made = {s.name: s for s in schedule_settings(SCHEDULERS["SequentialLR"](optimizer).state_dict())}
    assert made["schedule"].text == "SequentialLR"
    assert [p["kind"] for p in json.loads(made["schedule._schedulers"].text)] == [
        "LinearLR", "CosineAnnealingLR", "ConstantLR",
    ]  # fmt: skip
