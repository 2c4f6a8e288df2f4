"""The sample run with nothing left but its weights: a decay clock must stand in for all hyperparameters."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import smd_analyze as smd
from smd_analyze.records.report import Report

RUNS = Path(__file__).resolve().parents[2] / "sample_runs"
MAKE = RUNS / "make.py"
TOO_CLOSE = "learning rate changed|begins within|spacing under"
CONVOLUTIONS = ("conv1", "layer1.conv1", "layer1.conv2", "layer2.conv1", "layer2.conv2", "layer2.shortcut.0")


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    with np.load(RUNS / "truth" / "resnet_sgdm.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of the checkpoints that hold weights, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    for file in sorted((RUNS / "resnet_sgdm").glob("*.pt")):
        torch.save(torch.load(file, weights_only=False)["model"], folder / file.name)
    return folder


@pytest.fixture(scope="module")
def report(bare: Path) -> Report:
    return smd.analyze(bare, model=f"{MAKE}:resnet", inputs=f"{MAKE}:resnet_inputs")


def test_the_schedule_is_that_of_the_training(report: Report, truth: dict[str, np.ndarray]):
    table = report.schedule
    assert report.settings.height == 0
    assert table["sum_decay"].null_count() == 0
    rates = truth["learning_rate"] * float(truth["weight_decay"])
    sums = np.array([rates[a + 1 : b + 1].sum() for a, b in table.select("step_from", "step_to").iter_rows()])
    low, best, high = (table[f"sum_decay{end}"].to_numpy() for end in ("_low", "", "_high"))
    assert np.abs(best / sums - 1).max() < 0.01
    assert np.median(np.abs(best / sums - 1)) < 1e-3
    assert ((low <= sums) & (sums <= high)).mean() > 0.9
    changes = table.filter("learning_rate_changes").select("step_from", "step_to").rows()
    drop = int(truth["drop"])
    assert any(a <= drop < b for a, b in changes)
    assert len(changes) <= 3


def test_what_was_inferred_and_assumed_is_said(report: Report, truth: dict[str, np.ndarray]):
    assert set(report.schedule["optimizer"]) == {"sgd"}
    assert not report.schedule["momentum_assumed"].any()  # the buffer filled in the first interval
    assert set(report.schedule["momentum"]) == {float(truth["momentum"])}
    assert report.schedule["source"].str.contains("clock of fc.weight, assumed to hold here").all()
    assert report.schedule["source"].str.contains("momentum 0.9, read off steps 0 to 150").all()
    codes = set(report.findings["code"])
    assert {"momentum-read", "clock-transfer-assumed", "optimizer-inferred"} <= codes
    assert not any(code.startswith("missing") for code in codes)


def test_norms_and_clock_imply_the_angular_update(report: Report, truth: dict[str, np.ndarray]):
    rows = report.angular_updates.filter(
        (pl.col("method") == "norms") & pl.col("group").is_in(CONVOLUTIONS) & ~pl.col("note").str.contains(TOO_CLOSE)
    )
    names = truth["tensors"].tolist()
    errors = []
    for row in rows.iter_rows(named=True):
        angles = truth["unit_angle"][row["step_from"] + 1 : row["step_to"] + 1, names.index(f"{row['group']}.weight")]
        errors.append(abs(row["angular_update"] / np.sqrt((angles.astype(np.float64) ** 2).mean()) - 1))
    assert len(errors) > 200
    assert np.median(errors) < 0.03
    assert np.percentile(errors, 95) < 0.10


def test_every_layer_has_its_state_in_words(report: Report):
    known = smd.analyze(RUNS / "resnet_sgdm", model=f"{MAKE}:resnet", inputs=f"{MAKE}:resnet_inputs")
    ours, theirs = ({r["group"]: r for r in t.layers.iter_rows(named=True)} for t in (report, known))
    assert set(ours) == set(theirs)
    for name in CONVOLUTIONS:
        stationary = [bool(re.match("norm stationary", r[name]["state"])) for r in (ours, theirs)]
        assert stationary[0] == stationary[1], name
        assert "unknown" not in ours[name]["state"]
        assert ours[name]["half_lives"] == pytest.approx(theirs[name]["half_lives"], rel=0.01)


def test_with_momentum_and_decay_given_the_learning_rate_follows(
    bare: Path, report: Report, truth: dict[str, np.ndarray]
):
    told = {"momentum": 0.9, "weight_decay": float(truth["weight_decay"])}
    schedule = smd.resolve_schedule(smd.load_run(bare), report.clocks, told)
    assert not schedule.table["momentum_assumed"].any()
    last = schedule.table.sort("step_from").row(-1, named=True)
    assert last["learning_rate_last"] == pytest.approx(float(truth["learning_rate"][-1]), rel=2e-3)
