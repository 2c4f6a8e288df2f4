"""The whole analysis of the sample runs against what was logged while they trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import smd_analyze as smd
from smd_analyze.records.report import Report

RUNS = Path(__file__).resolve().parents[2] / "sample_runs"
MAKE = RUNS / "make.py"
TOO_CLOSE = "learning rate changed|begins within|spacing under"  # notes of rows where the identity does not hold


def truth(run: str) -> dict[str, NDArray]:
    """Everything in the truth file."""
    with np.load(RUNS / "truth" / f"{run}.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def resnet() -> Report:
    return smd.analyze(RUNS / "resnet_sgdm", model=f"{MAKE}:resnet", inputs=f"{MAKE}:resnet_inputs")


@pytest.fixture(scope="module")
def qknorm() -> Report:
    return smd.analyze(RUNS / "qknorm_adamw", model=f"{MAKE}:qknorm", inputs=f"{MAKE}:qknorm_inputs")


@pytest.fixture(params=["resnet_sgdm", "qknorm_adamw"])
def run_and_report(request: pytest.FixtureRequest) -> tuple[str, Report]:
    return request.param, request.getfixturevalue(request.param.split("_")[0])


def rms_angle(t: dict[str, NDArray], group: str, start: int, stop: int) -> float:
    """Root mean square over steps and units of the angle that one step turned, of updates start+1 … stop."""
    column = t["tensors"].tolist().index(f"{group}.weight")
    return float(np.sqrt((t["unit_angle"][start + 1 : stop + 1, column].astype(np.float64) ** 2).mean()))


def errors(report: Report, t: dict[str, NDArray], method: str, groups: set[str], skip: str = TOO_CLOSE) -> pl.DataFrame:
    """The rows of one method, those that `skip` matches left out, with the truth and the relative error."""
    rows = report.angular_updates.filter(
        (pl.col("method") == method) & pl.col("group").is_in(list(groups)) & ~pl.col("note").str.contains(skip)
    )
    true = [rms_angle(t, r["group"], r["step_from"], r["step_to"]) for r in rows.iter_rows(named=True)]
    rows = rows.with_columns(pl.Series("true", true, dtype=pl.Float64))
    return rows.with_columns(error=(pl.col("angular_update") / pl.col("true") - 1).abs())


def invariant(report: Report) -> set[str]:
    """Groups that are one tensor and scale-invariant by itself."""
    return set(report.groups.filter(pl.col("status") == "invariant")["group"])


def test_every_checkpoint_is_found(run_and_report: tuple[str, Report]):
    run, report = run_and_report
    assert report.checkpoints["step"].to_list() == truth(run)["checkpoint_step"].tolist()
    assert report.provenance["step_unit"] == "optimizer steps"


def test_norms_and_angles_are_exact(run_and_report: tuple[str, Report]):
    run, report = run_and_report
    t = truth(run)
    names = t["tensors"].tolist()
    single = [(g, m) for g, m in report.groups.select("group", "units").iter_rows() if f"{g}.weight" in names]
    assert len(single) >= 7
    for group, _ in single:
        column = names.index(f"{group}.weight")
        rows = report.statistics.filter(pl.col("group") == group).sort("step")
        assert rows["step"].to_list() == t["checkpoint_step"].tolist()
        np.testing.assert_allclose(rows["weight_norm"].to_numpy(), t["checkpoint_norm"][:, column], rtol=1e-6)
        np.testing.assert_allclose(rows["weight_norm"].to_numpy(), t["norm"][t["checkpoint_step"], column], rtol=1e-6)
        assert rows["angle"][0] is None
        np.testing.assert_allclose(rows["angle"][1:].to_numpy(), t["checkpoint_angle"][1:, column], rtol=1e-5)
        assert rows["nonfinite"].sum() == 0


def test_convolutions_are_invariant_per_filter_and_the_classifier_is_not(resnet: Report):
    rows = {r["group"]: r for r in resnet.groups.iter_rows(named=True)}
    convs = [n.removesuffix(".weight") for n in truth("resnet_sgdm")["tensors"].tolist() if n != "fc.weight"]
    for name in convs:
        assert (rows[name]["status"], rows[name]["granularity"]) == ("invariant", "unit")
    assert rows["fc"]["status"] == "not invariant"


def test_queries_and_keys_are_invariant_per_head(qknorm: Report):
    rows = {r["group"]: r for r in qknorm.groups.iter_rows(named=True)}
    for layer in (0, 1):
        for part in ("q_proj", "k_proj"):
            row = rows[f"model.layers.{layer}.self_attn.{part}"]
            assert (row["status"], row["granularity"], row["units"]) == ("invariant", "block", 4)
    assert rows["model.layers.0.mlp.gate_proj"]["status"] != "invariant"


def test_schedule_is_that_of_the_training(run_and_report: tuple[str, Report]):
    run, report = run_and_report
    t = truth(run)
    groups = set(report.groups.filter(pl.col("status") == "invariant")["parameter_group"])
    rows = report.schedule.filter(pl.col("parameter_group").is_in(list(groups)))
    assert rows.height == len(t["checkpoint_step"]) - 1
    for r in rows.iter_rows(named=True):
        start, stop = r["step_from"], r["step_to"]
        rates = t["learning_rate"][start + 1 : stop + 1]
        # the drop follows from counts of epochs; warm-up and cosine are known at logged steps and checkpoints only
        near = 0.02 if run == "qknorm_adamw" else 1e-6
        assert r["sum_learning_rate"] == pytest.approx(rates.sum(), rel=near)
        assert r["sum_decay"] == pytest.approx(rates.sum() * float(t["weight_decay"]), rel=near)
        assert r["learning_rate_last"] == pytest.approx(rates[-1], rel=near)
        if run == "resnet_sgdm":
            assert r["sum_decay_low"] * (1 - 1e-6) <= rates.sum() * 1e-3 <= r["sum_decay_high"] * (1 + 1e-6)


def test_norms_imply_the_angular_update_of_sgd(resnet: Report):
    found = errors(resnet, truth("resnet_sgdm"), "norms", invariant(resnet))
    assert found.height > 200
    assert found["angular_update"].null_count() == 0
    assert np.median(found["error"].to_numpy()) < 0.03
    assert np.percentile(found["error"].to_numpy(), 95) < 0.10


@pytest.mark.parametrize("method", ["consecutive", "buffer"])
def test_measured_angular_updates_of_sgd_are_the_true_ones(resnet: Report, method: str):
    found = errors(resnet, truth("resnet_sgdm"), method, invariant(resnet))
    assert found.height >= 6 * (8 if method == "consecutive" else 60)
    assert found["error"].to_numpy().max() < 1e-4
    assert found["independent"].all()


def test_measured_angular_updates_of_adamw_are_the_true_ones(qknorm: Report):
    t = truth("qknorm_adamw")
    consecutive = errors(qknorm, t, "consecutive", invariant(qknorm))
    assert consecutive.height == 4 * 6
    assert consecutive["error"].to_numpy().max() < 1e-4
    buffers = errors(qknorm, t, "buffer", invariant(qknorm))
    assert buffers.height >= 4 * 30
    assert buffers["error"].to_numpy().max() < 0.10


def test_equilibrium_is_predicted_from_the_settings_alone(resnet: Report):
    last = resnet.predictions.filter(pl.col("group") == "layer1.conv1").sort("step").row(-1, named=True)
    assert last["equilibrium_angular_update"] == pytest.approx(np.sqrt(2 * 0.02 * 1e-3 / 1.9), rel=2e-3)
    assert last["half_lives"] > 10
