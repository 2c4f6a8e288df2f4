"""Logged learning rates between checkpoints: which update each belongs to, whose they are, how far off they may be."""

import numpy as np
import pytest
from schedule_runs import checkpoint, codes, column, run, setting, sgd

from smd_analyze.records.run import Log
from smd_analyze.schedule.resolve import resolve_schedule

STEPS = (0, 40, 100, 160, 200)
GROUPS = {"0": ("conv.weight",), "1": ("norm.bias",)}


def truth(u):
    """η of update u: a warm-up over 20 updates, then a cosine down to zero at 200."""
    c = np.asarray(u, float) - 1
    return np.where(c < 20, 0.1 * (c + 1) / 20, 0.05 * (1 + np.cos(np.pi * (c - 20) / 180)))


def sums():
    return [float(truth(np.arange(a + 1, b + 1)).sum()) for a, b in zip(STEPS, STEPS[1:], strict=False)]


def bare(*logs, unit="optimizer steps", steps=STEPS):
    """A run whose checkpoints hold no optimizer."""
    return resolve_schedule(run(*(checkpoint(t) for t in steps), unit=unit, logs=logs))


def log(at, values, applies=None, source="metrics.csv", label="lr", **more):
    return Log("learning_rate", label, tuple(map(float, at)), tuple(map(float, values)), source, applies, **more)


def holds(found, begin=0):
    """The true sums lie in the brackets, from interval number `begin` on."""
    ends = zip(column(found, "sum_learning_rate_low"), sums(), column(found, "sum_learning_rate_high"), strict=True)
    return all(low <= t * (1 + 1e-9) and t <= high * (1 + 1e-9) for low, t, high in list(ends)[begin:])


@pytest.mark.parametrize(("applies", "first"), [("next update", 0), ("last update", 1)])
def test_every_update_logged_gives_the_sum_itself(applies, first):
    at = np.arange(first, 200 + first)
    found = bare(log(at, truth(np.arange(1, 201)), applies))
    for end in ("", "_low", "_high"):
        assert column(found, f"sum_learning_rate{end}") == pytest.approx(sums(), rel=1e-12)
    assert set(column(found, "source")) == {"metrics.csv, lr (logged)"}


@pytest.mark.parametrize("shift", [0, 1])
def test_where_the_convention_is_not_known_both_are_within(shift):
    """A script that counts from one logs before or after its scheduler: the bracket holds the truth of either."""
    found = bare(log(np.arange(1, 201), truth(np.arange(1, 201) + shift)))
    assert holds(found, begin=1)  # the first update itself may not have been logged
    spread = np.subtract(column(found, "sum_learning_rate_high"), column(found, "sum_learning_rate_low"))
    assert np.all(spread < 0.11)  # one step's change of the rate, not more


@pytest.mark.parametrize("shift", [1, 2])
def test_a_log_that_starts_at_zero_counts_updates_made_before(shift):
    assert holds(bare(log(np.arange(200), truth(np.arange(200) + shift))), begin=1)


def test_a_sparse_log_is_near_and_its_bracket_holds():
    at = np.arange(0, 201, 10)
    found = bare(log(at, truth(at + 1), "next update"))
    assert holds(found)
    assert column(found, "sum_learning_rate") == pytest.approx(sums(), rel=0.02)


def test_a_log_that_ends_early_leaves_the_rest_unknown():
    found = bare(log(range(100), truth(np.arange(1, 101)), "next update"))
    assert column(found, "sum_learning_rate")[:2] == pytest.approx(sums()[:2])
    assert column(found, "sum_learning_rate")[2:] == [None, None]
    assert column(found, "learning_rate_first")[2:] == [None, None]


def test_epochs_held_between_their_neighbours():
    rates = [0.1, 0.08, 0.05, 0.01]
    steps = (0, 10, 20, 30, 40)
    found = bare(log(steps[1:], rates, width=10.0), steps=steps)
    assert column(found, "sum_learning_rate") == pytest.approx([10 * r for r in rates])
    assert column(found, "sum_learning_rate_low")[0] == pytest.approx(0.8)
    assert column(found, "sum_learning_rate_high")[2] == pytest.approx(0.8)


def test_the_mean_of_an_epoch_gives_its_sum():
    steps = (0, 40, 100, 160, 200)
    at = np.arange(20, 201, 20)
    means = [float(truth(np.arange(a - 19, a + 1)).mean()) for a in at]
    found = bare(log(at, means, width=20.0, mean=True), steps=steps)
    for end in ("", "_low", "_high"):
        assert column(found, f"sum_learning_rate{end}") == pytest.approx(sums(), rel=1e-9)


def test_a_run_in_epochs_has_rates_but_no_sums():
    found = bare(log((1, 2, 3), (0.1, 0.05, 0.02), width=1.0), unit="epochs", steps=(0, 1, 2, 3))
    assert column(found, "learning_rate_first") == pytest.approx([0.1, 0.05, 0.02])
    assert column(found, "sum_learning_rate") == [None] * 3


def held(at, groups=("",), factors=(1.0,)):
    """Checkpoints whose optimizer holds the true learning rate of the next update, times a factor in each group."""
    return [
        checkpoint(t, [s for g, f in zip(groups, factors, strict=True) for s in sgd(float(f * truth(t + 1)), g)])
        for t in at
    ]


def test_a_log_that_contradicts_the_optimizer_is_not_used():
    wrong = log(range(200), 3 * truth(np.arange(1, 201)), "next update")
    found = resolve_schedule(run(*held(STEPS), logs=(wrong,)))
    assert codes(found) == ["log-not-used"]
    assert "metrics.csv" in found.findings[0].message
    assert "opt.pt" in column(found, "source")[0]
    assert "metrics" not in column(found, "source")[0]


def test_each_group_gets_its_series():
    logs = [
        log(range(200), f * truth(np.arange(1, 201)), "next update", label=f"lr/pg{i}") for i, f in enumerate((1, 3))
    ]
    found = resolve_schedule(run(*held(STEPS, "01", (1, 3)), groups=GROUPS, logs=tuple(logs)))
    assert column(found, "sum_learning_rate", "0") == pytest.approx(sums())
    assert column(found, "sum_learning_rate", "1") == pytest.approx([3 * s for s in sums()])


def test_one_series_is_only_for_the_groups_that_agree():
    one = log(range(200), truth(np.arange(1, 201)), "next update")
    found = resolve_schedule(run(*held(STEPS, "01", (1, 3)), groups=GROUPS, logs=(one,)))
    assert column(found, "sum_learning_rate", "0") == pytest.approx(sums())
    assert "metrics" not in column(found, "source", "1")[0]
    assert "log-not-used" not in codes(found)


def test_several_series_without_an_optimizer_are_nobodys():
    logs = [
        log(range(200), f * truth(np.arange(1, 201)), "next update", label=f"lr_{n}") for n, f in (("g", 1), ("d", 4))
    ]
    found = bare(*logs)
    assert column(found, "sum_learning_rate") == [None] * 4
    assert "log-not-used" in codes(found)
    same = [log(range(200), truth(np.arange(1, 201)), "next update", label=n) for n in ("lr_g", "lr_d")]
    assert column(bare(*same), "sum_learning_rate") == pytest.approx(sums())


def test_logged_momentum_and_decay():
    more = [
        Log(name, name, tuple(range(200)), values, "metrics.csv", "next update")
        for name, values in (("momentum", tuple(np.linspace(0.8, 0.9, 200))), ("weight_decay", (1e-3,) * 200))
    ]
    found = bare(log(range(200), [0.1] * 200, "next update"), *more)
    assert column(found, "momentum") == pytest.approx([0.81, 0.835, 0.865, 0.89], abs=2e-3)
    assert column(found, "sum_decay") == pytest.approx([4e-3, 6e-3, 6e-3, 4e-3])


def test_a_configured_rate_gives_way_to_what_was_logged():
    told = setting("learning_rate", 0.7, kind="configured", applies="whole run", source="args.yaml, lr")
    points = [checkpoint(t, [told]) for t in STEPS]
    found = resolve_schedule(run(*points, logs=(log(range(200), truth(np.arange(1, 201)), "next update"),)))
    assert column(found, "sum_learning_rate") == pytest.approx(sums())
    assert "configured-learning-rate" not in codes(found)


def test_the_callers_word_wins_over_logs():
    found = resolve_schedule(
        run(*held(STEPS), logs=(log(range(200), truth(np.arange(1, 201)), "next update"),)), settings={"lr": 0.5}
    )
    assert column(found, "sum_learning_rate") == pytest.approx([20, 30, 30, 20])
    assert column(found, "source")[0].startswith("caller")


def test_conflicts_name_the_file_and_the_state():
    told = setting("weight_decay", 1e-4, kind="configured", applies="whole run", source="hparams.yaml, weight_decay")
    points = [checkpoint(t, [*sgd(0.1), told]) for t in (0, 10)]
    (conflict,) = resolve_schedule(run(*points)).findings
    assert conflict.code == "conflict"
    assert "hparams.yaml, weight_decay says 0.0001" in conflict.message
    assert "opt.pt" in conflict.message
