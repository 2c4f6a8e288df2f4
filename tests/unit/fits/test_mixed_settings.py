"""Joint sets whose members were trained with different hyperparameters: said in a finding, without a prediction."""

import numpy as np
import polars as pl

from smd_analyze.fits.mixed import mixed_settings
from smd_analyze.records.group import Group, Member
from smd_analyze.records.schedule import Schedule
from smd_analyze.theory.of_group import parameter_group_of

STEPS = (0, 10, 20)


def joint(name, *members, status="jointly invariant"):
    parts = tuple(Member(m, 0, 0, 1) for m in members)
    return Group(name, parts, status, "whole", 1, 2, "", "proved", "linear", "")


def schedule(**decay):
    rows = [
        {"parameter_group": name, "step_from": a, "step_to": b, "optimizer": "sgd", "weight_decay": x, "source": name}
        for name, x in decay.items()
        for a, b in zip(STEPS, STEPS[1:], strict=False)
    ]
    return Schedule(pl.DataFrame(rows), {"fc.weight": "a", "fc.bias": "b"}, "optimizer steps")


def test_members_that_differ_are_a_finding_and_have_no_common_group():
    plan, fc = schedule(a=0.1, b=0.0), joint("fc+bias", "fc.weight", "fc.bias")
    (finding,) = mixed_settings([fc], np.array(STEPS), plan)
    assert (finding.code, finding.severity, finding.where) == ("members-differ-in-settings", "warning", "fc+bias")
    assert "parameter groups a and b" in finding.message
    assert parameter_group_of(fc, plan) is None


def test_two_parameter_groups_that_were_trained_alike_are_one(monkeypatch):
    plan, fc = schedule(a=0.1, b=0.1), joint("fc+bias", "fc.weight", "fc.bias")
    monkeypatch.setattr("smd_analyze.fits.mixed.regime", lambda *_: type("Same", (), {"gap": ""}))
    assert mixed_settings([fc], STEPS, plan) == []
    assert parameter_group_of(fc, plan) == "a"


def test_what_is_not_invariant_needs_no_joint_theory():
    fc = joint("fc", "fc.weight", "fc.bias", status="not invariant")
    assert mixed_settings([fc], STEPS, schedule(a=0.1, b=0.0)) == []
