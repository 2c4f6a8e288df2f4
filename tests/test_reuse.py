"""A second call with the same report reuses what it holds, and only if it is of the same files."""

import os

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import smd_analyze as smd
from smd_analyze import analysis
from smd_analyze.errors import CannotWrite


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    weight = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    for step in (100, 200, 300):
        save_file({"layer.conv1.weight": weight * np.float32(step)}, folder / f"step_{step}.safetensors")
    return folder


@pytest.fixture
def passes(monkeypatch):
    """How often the bytes were read."""
    calls = []
    measure = analysis.measure
    monkeypatch.setattr(analysis, "measure", lambda *a, **k: (calls.append(1), measure(*a, **k))[1])
    return calls


def test_the_same_files_are_read_once(run, passes, tmp_path):
    out = tmp_path / "r.h5"
    first = smd.analyze(run, output=out)
    second = smd.analyze(run, output=out, settings={"optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-3})
    assert len(passes) == 1
    assert second.statistics.equals(first.statistics)
    assert np.array_equal(smd.units(second, "layer.conv1").vv, smd.units(first, "layer.conv1").vv)
    assert smd.load(out).schedule["sum_decay"].null_count() == 0
    assert "missing-learning-rate" not in second.findings["code"].to_list()


def test_a_changed_file_is_read_again(run, passes, tmp_path):
    out = tmp_path / "r.h5"
    first = smd.analyze(run, output=out)
    last = run / "step_300.safetensors"
    save_file({"layer.conv1.weight": np.ones((8, 4, 3, 3), np.float32)}, last)
    os.utime(last, ns=(1, 1))
    assert not smd.analyze(run, output=out).statistics.equals(first.statistics)
    assert len(passes) == 2


def test_another_copy_of_the_weights_is_measured(passes, tmp_path):
    folder, out = tmp_path / "run", tmp_path / "r.h5"
    folder.mkdir()
    for step in (100, 200, 300):
        live = torch.full((8, 4, 3, 3), float(step))
        states = {"model": {"layer.conv1.weight": live}, "ema": {"layer.conv1.weight": live / 7}}
        torch.save({**states, "step": step}, folder / f"step_{step}.pt")
    live = smd.analyze(folder, output=out).statistics["weight_norm"]
    ema = smd.analyze(folder, output=out, weights="ema").statistics["weight_norm"]
    assert len(passes) == 2
    assert np.allclose(ema * 7, live)


def test_a_damaged_report_is_made_anew(run, passes, tmp_path):
    out = tmp_path / "r.h5"
    smd.analyze(run, output=out)
    with h5py.File(out, "a") as file:
        del file["statistics"]
    assert smd.analyze(run, output=out).statistics.height == 3
    assert len(passes) == 2
    assert smd.load(out).statistics.height == 3


def test_a_file_that_is_no_report_is_not_overwritten(run, tmp_path):
    out = tmp_path / "weights.h5"
    out.write_bytes(b"somebody's weights")
    with pytest.raises(CannotWrite, match="no report"):
        smd.analyze(run, output=out)
    assert out.read_bytes() == b"somebody's weights"
