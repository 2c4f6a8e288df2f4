"""The run that Keras trained: its files against its truth, and the whole analysis against what was logged. No Keras."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import smd_analyze as smd
from smd_analyze.records.report import Report
from smd_analyze.records.run import Run

RUNS = Path(__file__).resolve().parents[2] / "sample_runs"
FOLDER = RUNS / "convnet_keras"
CONVOLUTIONS = ("conv", "block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2", "block2_project")
LAMBDA, ALPHA, RATE, DROPPED = 0.04, 0.9, 0.05, 0.0125
TOO_CLOSE = "learning rate changed|begins within|spacing under"  # notes of rows where the identity does not hold


@pytest.fixture(scope="module")
def run() -> Run:
    return smd.load_run(FOLDER)


@pytest.fixture(scope="module")
def report() -> Report:
    return smd.analyze(FOLDER)


@pytest.fixture(scope="module")
def t() -> dict[str, NDArray]:
    with np.load(RUNS / "truth" / "convnet_keras.npz") as file:
        return {key: file[key] for key in file.files}


def errors(report: Report, t: dict[str, NDArray], method: str) -> pl.DataFrame:
    """Rows of one method of the convolutions with their relative error against the logged angles."""
    rows = report.angular_updates.filter(
        (pl.col("method") == method)
        & pl.col("group").is_in(CONVOLUTIONS)
        & ~pl.col("note").str.contains(TOO_CLOSE)
        & (pl.col("step_to") > 0)
    )
    names = t["tensors"].tolist()
    true = []
    for r in rows.iter_rows(named=True):
        logged = t["unit_angle"][r["step_from"] + 1 : r["step_to"] + 1, names.index(f"{r['group']}/kernel")]
        true.append(float(np.sqrt((logged.astype(np.float64) ** 2).mean())))
    rows = rows.with_columns(pl.Series("true", true, dtype=pl.Float64))
    return rows.with_columns(error=(pl.col("angular_update") / pl.col("true") - 1).abs())


def test_the_files_are_keras_own_and_small():
    files = sorted(FOLDER.glob("*.keras"))
    assert 30 <= len(files) <= 60
    assert sum(f.stat().st_size for f in files) < 6e6
    with zipfile.ZipFile(files[-1]) as archive:
        assert json.loads(archive.read("metadata.json"))["keras_version"].startswith("3.")
        told = json.loads(archive.read("config.json"))["compile_config"]["optimizer"]
    assert (told["class_name"], told["config"]["momentum"], told["config"]["weight_decay"]) == ("SGD", ALPHA, LAMBDA)


def test_every_checkpoint_is_found_in_optimizer_steps(run: Run, t: dict[str, NDArray]):
    assert [c.step for c in run.checkpoints] == t["checkpoint_step"].tolist()
    assert run.step_unit == "optimizer steps"
    assert {c.framework for c in run.checkpoints} == {"keras"}
    steps = [c.step for c in run.checkpoints]
    assert sum(b - a == 1 for a, b in zip(steps, steps[1:], strict=False)) >= 5


def test_weights_norms_and_angles_are_those_of_the_training(run: Run, report: Report, t: dict[str, NDArray]):
    names = t["tensors"].tolist()
    assert {n for n, p in run.checkpoints[0].parameters.items() if len(p.shape) > 1} == set(names)
    for column, name in enumerate(names):
        rows = report.statistics.filter(pl.col("group") == name.removesuffix("/kernel")).sort("step")
        np.testing.assert_allclose(rows["weight_norm"].to_numpy(), t["checkpoint_norm"][:, column], rtol=1e-6)
        np.testing.assert_allclose(rows["angle"][1:].to_numpy(), t["checkpoint_angle"][1:, column], rtol=1e-5)


def test_the_velocity_is_the_last_update(run: Run):
    """Keras' slot v: w after the update is (1 − ηλ)·w before it, plus v."""
    pairs = [(a, b) for a, b in zip(run.checkpoints, run.checkpoints[1:], strict=False) if b.step - a.step == 1]
    for before, after in pairs[:2] + pairs[-2:]:
        rate = RATE if after.step <= 1340 else DROPPED
        for name in (f"{c}/kernel" for c in CONVOLUTIONS):
            w, v = (after.parameters[name].read(), after.optimizer_state[name]["velocity"].read())
            rebuilt = (w - v) / (1 - rate * LAMBDA)
            np.testing.assert_allclose(rebuilt, before.parameters[name].read(), rtol=1e-5, atol=1e-6)


def test_settings_say_what_was_in_force(run: Run, t: dict[str, NDArray]):
    drop = int(t["drop"])
    for c in run.checkpoints:
        told = {(s.name, s.applies): s.value if s.value is not None else s.text for s in c.settings}
        assert told["learning_rate", "next update"] == (RATE if c.step < drop else DROPPED)
        assert told.get(("learning_rate", "last update"), RATE) == (RATE if c.step <= drop else DROPPED)
        assert told["weight_decay", "last update"] == LAMBDA
        assert told["decoupled_weight_decay", "whole run"] == 1
        assert told["momentum", "last update"] == ALPHA
        assert told["optimizer", "whole run"] == "SGD"


def test_schedule_is_exact_although_the_drop_lies_between_checkpoints(report: Report, t: dict[str, NDArray]):
    assert set(report.schedule["optimizer"]) == {"sgdw"}
    assert not any(a == int(t["drop"]) for a in t["checkpoint_step"])
    for r in report.schedule.iter_rows(named=True):
        rates = t["learning_rate"][r["step_from"] + 1 : r["step_to"] + 1]
        assert r["sum_learning_rate"] == pytest.approx(rates.sum(), rel=1e-6)
        assert r["sum_decay_low"] == pytest.approx(rates.sum() * LAMBDA, rel=1e-6)
        assert r["sum_decay_high"] == pytest.approx(rates.sum() * LAMBDA, rel=1e-6)
        assert r["learning_rate_last"] == pytest.approx(rates[-1], rel=1e-6)


def test_convolutions_are_proved_invariant_per_filter_by_the_files_own_graph(report: Report):
    rows = {r["group"]: r for r in report.groups.iter_rows(named=True)}
    for name in CONVOLUTIONS:
        assert (rows[name]["status"], rows[name]["granularity"]) == ("invariant", "unit")
        assert rows[name]["evidence"] == "proved"
        assert rows[name]["units"] == (12 if "block2" in name else 8)
    assert rows["head"]["status"] == "not invariant"


@pytest.mark.parametrize(("method", "least"), [("consecutive", 6 * 8), ("buffer", 6 * 35)])
def test_measured_angular_updates_are_the_true_ones(report: Report, t: dict[str, NDArray], method: str, least: int):
    found = errors(report, t, method)
    assert found.height >= least
    assert found["error"].to_numpy().max() < 1e-3
    assert found["independent"].all()


def test_norms_imply_the_angular_update(report: Report, t: dict[str, NDArray]):
    found = errors(report, t, "norms")
    assert found.height > 6 * 20
    assert np.median(found["error"].to_numpy()) < 0.03
    assert np.percentile(found["error"].to_numpy(), 95) < 0.10


def test_equilibrium_is_predicted_and_reached(report: Report, t: dict[str, NDArray]):
    """cos θ* = (1 − x + α)/(1 + (1 − x)α) of decoupled decay; the last steps turned by that angle."""
    x = DROPPED * LAMBDA
    expected = np.arccos((1 - x + ALPHA) / (1 + (1 - x) * ALPHA))
    names = t["tensors"].tolist()
    for name in CONVOLUTIONS:
        last = report.predictions.filter(pl.col("group") == name).sort("step").row(-1, named=True)
        assert last["equilibrium_angular_update"] == pytest.approx(expected, rel=1e-9)
        assert last["half_lives"] > 20
        turned = t["unit_angle"][-800:, names.index(f"{name}/kernel")].astype(np.float64)
        assert np.sqrt((turned**2).mean()) == pytest.approx(expected, rel=0.1)
