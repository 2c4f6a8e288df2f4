"""Saved optimizer directions against real torch optimizers: the angle from (w, d, η) is that of the step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from handmade_runs import Memory, checkpoint, group_of, in_memory, kahan, run_of, write

from smd_analyze.records.run import Setting
from smd_analyze.statistics import directions, trajectories
from smd_analyze.statistics.streaming import measure

GROUPS = (
    group_of("layer", [("weight", 0, 0, 6)], 6, 60),
    group_of("columns", [("weight", 1, 2, 8)], 3, 36),
    group_of("joint", [("weight", 0, 0, 6), ("other", 1, 0, 6)], 2, 84),
)


def settings_of(optimizer, name):
    values = dict(optimizer.param_groups[0])
    made = [Setting("optimizer", None, name, "", "in force", "file")]
    if "betas" in values:
        values["beta1"], values["beta2"] = values["betas"]
    for word in ("lr", "nesterov", "beta1", "beta2", "eps", "momentum"):
        if isinstance(values.get(word), (int, float)):
            made.append(Setting(word, float(values[word]), None, "", "in force", "file"))
    return made


def train(make, name, steps=6, raw=None, lose=()):
    """Checkpoints after every step, and the weights as they were; decay outside the gradient is zero in all cases."""
    torch.manual_seed(0)
    parameters = {"weight": torch.nn.Parameter(torch.randn(6, 10)), "other": torch.nn.Parameter(torch.randn(4, 6))}
    optimizer = make(parameters.values())
    made, weights = [], []
    for step in range(steps):
        weights.append({n: p.detach().numpy().copy() for n, p in parameters.items()})
        if step in lose or step == 0:
            state = {}
        else:
            state = {n: {k: v.numpy().copy() for k, v in optimizer.state[p].items()} for n, p in parameters.items()}
        if raw is None:
            tensors, saved = in_memory(weights[-1]), {n: in_memory(s) for n, s in state.items()}
            path = f"memory{step}"
        else:
            path = raw / f"{step}.safetensors"
            flat = {f"{n}/{k}": v for n, s in state.items() for k, v in s.items()}
            every = write(path, {**weights[-1], **flat})
            tensors = {n: every[n] for n in weights[-1]}
            saved = {n: {k: every[f"{n}/{k}"] for k in s} for n, s in state.items()}
        made.append(checkpoint(step, path, tensors, settings_of(optimizer, name), saved))
        optimizer.zero_grad()
        sum((p**3).sum() + (p * torch.randn_like(p)).sum() for p in parameters.values()).backward()
        optimizer.step()
    return run_of(made), weights


def cut(weights, members, units):
    return np.concatenate(
        [np.moveaxis(weights[p], a, 0)[i:j].astype(np.float64).reshape(units, -1) for p, a, i, j in members], axis=1
    )


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1), "sgd"),
        (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, dampening=0.5), "sgd"),
        (lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.95), eps=1e-2, weight_decay=0.1), "adam"),
        (lambda p: torch.optim.AdamW(p, lr=0.01, eps=1e-4, weight_decay=0.1), "adamw"),
        (lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True), "adam"),
    ],
)
def test_the_angle_of_the_last_step_follows_from_one_checkpoint(make, name, raw, tmp_path, monkeypatch):
    monkeypatch.setattr(directions, "BLOCK", 23)
    run, weights = train(make, name, raw=tmp_path if raw else None)
    stats = measure(run, GROUPS, Memory())
    for group in GROUPS:
        series = stats.units(group.name)
        assert np.isnan(series.uu[0]).all()
        angles = trajectories.step_angle(series.vv, series.uu, series.wu, np.array(0.01))
        members = [(m.parameter, m.axis, m.start, m.stop) for m in group.members]
        for t in range(1, len(weights)):
            before, after = (cut(weights[i], members, group.units) for i in (t - 1, t))
            true = [kahan(u, v) for u, v in zip(before, after, strict=True)]
            np.testing.assert_allclose(angles[t], true, rtol=2e-4)
    assert not [f for f in stats.findings if f.code.startswith("direction")]


def test_nesterov_is_skipped_with_one_reason():
    run, _ = train(lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True), "sgd")
    stats = measure(run, GROUPS, Memory())
    assert stats.units("layer").uu is None
    assert [f.code for f in stats.findings] == ["direction-unknown"]
    assert "Nesterov" in stats.findings[0].message


def test_an_optimizer_without_a_rule_is_named():
    run, _ = train(lambda p: torch.optim.NAdam(p, lr=0.01), "nadam")
    stats = measure(run, GROUPS, Memory())
    assert stats.units("layer").wu is None
    assert "nadam" in stats.findings[0].message


def test_checkpoints_without_state_are_nan():
    run, _ = train(lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), "sgd", lose=(3,))
    series = measure(run, GROUPS, Memory()).units("layer")
    assert np.isnan(series.uu).all(axis=1).tolist() == [True, False, False, True, False, False]
    assert np.isnan(series.wu).all(axis=1).tolist() == [True, False, False, True, False, False]
    assert np.isfinite(series.vv).all()


def test_sums_of_the_direction_are_those_of_numpy():
    run, weights = train(lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), "sgd")
    series = measure(run, GROUPS, Memory()).units("columns")
    buffer = run.checkpoints[4].optimizer_state["weight"]["momentum_buffer"].read()
    w, d = (x[:, 2:8].T.astype(np.float64).reshape(3, -1) for x in (weights[4]["weight"], buffer))
    np.testing.assert_allclose(series.uu[4], (d * d).sum(1), rtol=1e-12)
    np.testing.assert_allclose(series.wu[4], (w * d).sum(1), rtol=1e-12)


def test_a_file_that_goes_away_costs_the_direction_and_no_more():
    def gone():
        raise FileNotFoundError("step.pt")

    arrays = {"w": np.ones((2, 3), np.float32), "m": np.ones((2, 3), np.float32), "step": np.float32(3)}
    tensors = in_memory({n: np.asarray(a) for n, a in arrays.items()})
    state = {"exp_avg": tensors["m"], "exp_avg_sq": tensors["m"], "step": replace(tensors["step"], read=gone)}
    settings = [Setting(n, v, None, "", "in force", "") for n, v in (("beta1", 0.9), ("beta2", 0.99), ("eps", 1e-8))]
    group = group_of("w", [("w", 0, 0, 2)], 2, 6)
    run = run_of([checkpoint(0, "a", {"w": tensors["w"]}, settings, {"w": state})])
    stats = measure(run, (group,), Memory())
    assert stats.table["weight_norm"].to_list() == [pytest.approx(6**0.5)]
    assert [f.code for f in stats.findings] == ["direction-unknown"]
    assert "step.pt" in stats.findings[0].message
