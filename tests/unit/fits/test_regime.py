import numpy as np
import polars as pl
import pytest
from fits_runs import group, schedule

from smd_analyze.fits.regime import regime
from smd_analyze.records.group import Group, Member
from smd_analyze.records.schedule import Schedule

STEPS = np.array([0, 100, 200, 400])
RATES = np.where(np.arange(400) < 100, 0.1, 0.01)


def test_effective_decay_of_each_optimizer():
    heavy = regime(group(), STEPS, schedule(STEPS, RATES, decay=1e-3))
    assert heavy.decay == pytest.approx([0.1, 0.01, 0.02])  # Σηλ/(1−α)
    assert heavy.smear == pytest.approx(10)
    damped = regime(group(), STEPS, schedule(STEPS, RATES, decay=1e-3, dampening=0.9))
    assert damped.decay == pytest.approx([0.01, 0.001, 0.002])
    adamw = regime(group(), STEPS, schedule(STEPS, RATES, decay=1e-3, optimizer="adamw", momentum=None, beta1=0.9))
    assert adamw.decay == pytest.approx([0.01, 0.001, 0.002])
    assert adamw.smear == pytest.approx(10)
    adam = regime(group(), STEPS, schedule(STEPS, RATES, decay=1e-3, optimizer="adam"))
    assert np.isnan(adam.decay).all()
    assert "gradients" in adam.gap


def test_the_final_stretch_begins_after_the_last_change():
    assert regime(group(), STEPS, schedule(STEPS, RATES)).final_stretch() == 1
    late = np.where(np.arange(400) < 300, 0.1, 0.01)
    assert regime(group(), STEPS, schedule(STEPS, late)).final_stretch() == 3  # the last interval itself changes
    assert regime(group(), STEPS, schedule(STEPS, np.full(400, 0.1))).final_stretch() == 0


def test_a_subset_of_the_steps_joins_rows():
    found = regime(group(), np.array([0, 200, 400]), schedule(STEPS, RATES, decay=1e-3))
    assert found.decay == pytest.approx([0.11, 0.02])
    assert list(found.changes) == [True, False]
    missing = regime(group(), np.array([0, 150, 400]), schedule(STEPS, RATES))
    assert np.isnan(missing.decay).all()


def test_epochs_are_turned_into_updates():
    table = schedule(np.array([0, 1, 2]), np.full(2, 0.1)).table.with_columns(sum_learning_rate=pl.lit(5.0))
    found = regime(group(), np.array([0, 1, 2]), Schedule(table, {"conv1.weight": "all"}, "epochs"))
    assert list(found.updates) == [50, 50]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"optimizer": None}, "optimizer unknown"), ({"decay": None}, "weight decay unknown"),
        ({"momentum": None}, "momentum unknown"),
        ({"learning_rate_first": None, "sum_decay": None}, "learning rate unknown"),
    ],
)  # fmt: skip
def test_gaps_are_named(more, words):
    assert regime(group(), STEPS, schedule(STEPS, RATES, **more)).gap == words


def test_members_that_differ_have_no_common_schedule():
    two = schedule(STEPS, RATES, names=("a", "b"))
    table = two.table.with_columns(
        weight_decay=pl.when(pl.col("parameter_group") == "b").then(0.0).otherwise(pl.col("weight_decay"))
    )
    joint = Group(
        "joint",
        (Member("x", 0, 0, 1), Member("y", 0, 0, 1)),
        "jointly invariant",
        "whole",
        1,
        2,
        "",
        "proved",
        "linear",
        "",
    )
    found = regime(joint, STEPS, Schedule(table, {"x": "a", "y": "b"}, "optimizer steps"))
    assert "members differ in learning rate or weight decay" in found.gap
    assert regime(joint, STEPS, Schedule(two.table, {"x": "a", "y": "b"}, "optimizer steps")).gap == ""
    assert (
        regime(group(parameter_group="none"), STEPS, Schedule(table, {}, "optimizer steps")).gap == "schedule unknown"
    )


def test_decoupled_decay_of_an_unknown_optimizer_tells_the_decay_and_nothing_else():
    nobody = {"optimizer": None, "momentum": None}
    found = regime(group(), STEPS, schedule(STEPS, RATES, decay=1e-3, decoupled=True, **nobody))
    assert found.decay_alone
    assert found.gap == "optimizer unknown"  # what needs its name is still refused
    assert found.decay == pytest.approx([0.01, 0.001, 0.002])
    coupled = regime(group(), STEPS, schedule(STEPS, RATES, decay=1e-3, decoupled=None, **nobody))
    assert not coupled.decay_alone
    assert np.isnan(coupled.decay).all()
