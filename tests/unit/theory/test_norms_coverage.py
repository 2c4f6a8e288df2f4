"""Printed intervals against the angles that small trained networks really turned: what norms imply, end to end."""

from math import sqrt
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import smd_analyze as smd

STEPS, EVERY = 1000, 100


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lin1, self.bn1 = torch.nn.Linear(12, 32, bias=False), torch.nn.BatchNorm1d(32)
        self.lin2, self.bn2 = torch.nn.Linear(32, 32, bias=False), torch.nn.BatchNorm1d(32)
        self.head = torch.nn.Linear(32, 4)

    def forward(self, x):
        x = torch.relu(self.bn1(self.lin1(x)))
        return self.head(torch.relu(self.bn2(self.lin2(x))))


def turned(before, after):
    u, v = (w.double() / w.double().norm(dim=1, keepdim=True) for w in (before, after))
    return 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))


def train(folder, optimizer, rate=lambda t: 1.0, scale=1.0, state=False, steps=STEPS):
    """Train and save; true mean over units of θ² per step, by layer. `scale` of the inputs: small ones feel BN's ε."""
    torch.manual_seed(7)
    x = torch.randn(512, 12)
    y = (x @ torch.randn(12, 4)).argmax(1)
    net = Net()
    made = optimizer(net.parameters())
    base = made.param_groups[0]["lr"]
    layers = {n.removesuffix(".weight"): p for n, p in net.named_parameters() if n.startswith("lin")}
    true = {n: [] for n in layers}
    for t in range(steps + 1):
        made.param_groups[0]["lr"] = base * rate(t)
        if t % EVERY == 0:
            saved = {"model": net.state_dict(), "step": t} | ({"optimizer": made.state_dict()} if state else {})
            torch.save(saved, folder / f"ckpt_{t:06d}.pt")
        chosen = torch.randint(0, 512, (32,))
        loss = torch.nn.functional.cross_entropy(net(scale * x[chosen]), y[chosen], label_smoothing=0.2)
        made.zero_grad()
        loss.backward()
        old = {n: p.detach().clone() for n, p in layers.items()}
        made.step()
        for n, p in layers.items():
            true[n].append(float((turned(old[n], p.detach()) ** 2).mean()))
    return {n: np.array(v) for n, v in true.items()}


def heavy_ball(momentum=0.9, **changes):
    told: dict[str, Any] = {"lr": 0.1, "momentum": momentum, "weight_decay": 4e-3} | changes
    return lambda p: torch.optim.SGD(p, **told)


def rows(report, true):
    table = report.angular_updates.filter((pl.col("method") == "norms") & pl.col("group").is_in(list(true)))
    return [row for row in table.iter_rows(named=True) if row["angular_update_low"] is not None]


def within(row, true):
    value = sqrt(true[row["group"]][row["step_from"] : row["step_to"]].mean())
    return row["angular_update_low"] <= value <= row["angular_update_high"]


@pytest.mark.parametrize(
    ("optimizer", "state"),
    [
        (heavy_ball(), True),
        (heavy_ball(), False),
        (heavy_ball(0.0, weight_decay=2e-2), False),
        (heavy_ball(dampening=0.9, weight_decay=2e-2), True),
    ],
    ids=["buffers", "weights alone", "no momentum", "dampening"],
)
def test_intervals_of_norms_hold(tmp_path, optimizer, state):
    true = train(tmp_path, optimizer, lambda t: 1.0 if t < 500 else 0.2, state=state)
    told = {} if state else {"optimizer": "sgd", "momentum": optimizer(Net().parameters()).defaults["momentum"]}
    decay = optimizer(Net().parameters()).defaults["weight_decay"]
    if not state:
        told |= {"weight_decay": decay, "schedule": {"steps": [0, 500], "learning_rate": [0.1, 0.02]}}
    found = rows(smd.analyze(tmp_path, settings=told or None), true)
    assert len(found) >= 2 * (STEPS // EVERY - 2)
    assert np.mean([within(row, true) for row in found]) >= 0.95
    widths = [(r["angular_update_high"] - r["angular_update_low"]) / r["angular_update"] for r in found]
    assert np.median(widths) < 0.4


def test_the_epsilon_of_a_batch_norm_is_in_the_interval(tmp_path):
    """Inputs so small that ε is a few per cent of the variance: norms read too large an angle, and say how far off."""
    true = train(tmp_path, heavy_ball(), scale=0.004, state=True)
    report = smd.analyze(tmp_path)
    late = [r for r in rows(report, true) if r["group"] == "lin1" and r["step_from"] >= STEPS // 2]
    assert all("ε = 1e-05 assumed of the batch norm" in r["note"] for r in late)
    assert np.mean([within(r, true) for r in rows(report, true)]) >= 0.95
    value = np.mean([sqrt(true["lin1"][r["step_from"] : r["step_to"]].mean()) / r["angular_update"] for r in late])
    assert value < 0.97  # without ε in them most of these intervals would miss


def test_a_lone_checkpoint_tells_the_rotation_and_claims_no_agreement(tmp_path):
    true = train(tmp_path, heavy_ball(), state=True, steps=400)
    for path in sorted(tmp_path.iterdir())[:-1]:
        path.unlink()
    report = smd.analyze(tmp_path)
    row = report.layers.filter(pl.col("group") == "lin2").row(0, named=True)
    assert row["measured"] == pytest.approx(sqrt(true["lin2"][399]), rel=1e-4)
    assert row["equilibrium"] == pytest.approx(sqrt(2 * 4e-4 / 1.9), rel=1e-3)
    assert row["level"] is not None
    assert "one checkpoint; rotation" in row["state"]
    assert "agree" not in row["state"]
    assert "measured rotation is" in report.verdict
    assert "assumed of the last one" in report.schedule["source"][0]


def test_adam_with_l2_says_how_it_turns_against_its_equilibrium(tmp_path):
    train(tmp_path, lambda p: torch.optim.Adam(p, 5e-3, weight_decay=1e-2), state=True, steps=600)
    report = smd.analyze(tmp_path)
    states = report.layers.filter(pl.col("group").is_in(["lin1", "lin2"]))["state"]
    assert all("rotation" in state and "of equilibrium" in state for state in states)
    assert not any("stationary" in state or "agrees" in state for state in states)
    fits = report.fits.filter((pl.col("quantity") == "agreement") & (pl.col("group") == "lin1"))
    assert fits["outcome"][0] == "measured, whether at equilibrium is not known"
    assert fits["low"][0] < fits["value"][0] < fits["high"][0]


def test_norms_that_rounding_hides_are_below_resolution(tmp_path):
    """Float8 copies and hardly any motion: neither angle nor equilibrium index."""
    train(tmp_path, heavy_ball(lr=1e-3, weight_decay=1e-4), state=True, steps=600)
    for path in tmp_path.iterdir():
        saved = torch.load(path, weights_only=True)
        saved["model"] = {n: w.to(torch.float8_e4m3fn) if n.startswith("lin") else w for n, w in saved["model"].items()}
        torch.save(saved, path)
    report = smd.analyze(tmp_path)
    found = report.angular_updates.filter((pl.col("method") == "norms") & (pl.col("group") == "lin1"))
    assert found.height > 0
    assert found["angular_update"].null_count() == found.height
    assert all("below resolution" in note for note in found["note"])
    assert "below resolution" in report.layers.filter(pl.col("group") == "lin1")["state"][0]


def test_muons_adjustment_of_the_learning_rate_comes_from_its_state(tmp_path):
    net = torch.nn.Linear(8, 32, bias=False)
    made = torch.optim.Muon(net.parameters(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for t in range(3):
        torch.save({"model": net.state_dict(), "optimizer": made.state_dict(), "step": t}, tmp_path / f"ckpt_{t}.pt")
        net(torch.randn(4, 8)).square().mean().backward()
        made.step()
    table = smd.analyze(tmp_path).schedule
    assert (table["optimizer"][0], table["adjust_lr"][0]) == ("muon", "match_rms_adamw")
    assert table["nesterov"][0] is True
