"""From files to clocks and back: the flow, the report, and a second call that reads nothing again."""

import polars as pl
import pytest
from clock_runs import train
from safetensors.numpy import save_file

import smd_analyze as smd
from smd_analyze import tabulate
from smd_analyze.errors import UsageError

STEPS = tuple(range(100, 501, 100))


def folder(tmp_path, saved):
    place = tmp_path / "run"
    place.mkdir()
    for step, tensors in zip(STEPS, saved, strict=True):
        save_file({f"{name}.weight": w for name, w in tensors.items()}, place / f"step_{step}.safetensors")
    return place


@pytest.fixture
def run(tmp_path):
    return folder(tmp_path, train(STEPS, 1e-4))


@pytest.fixture
def passes(monkeypatch):
    """How often the bytes were read."""
    calls = []
    measure = smd.analyze.__globals__["measure"]
    monkeypatch.setitem(smd.analyze.__globals__, "measure", lambda *a, **k: (calls.append(1), measure(*a, **k))[1])
    return calls


def test_clocks_are_found_stage_by_stage(run):
    found = smd.load_run(run)
    groups = smd.find_groups(found)
    clocks = smd.find_clocks(smd.measure(found, groups), groups)
    assert {"head.weight", "emb.weight"} <= set(clocks.table["parameter"])
    assert clocks.table.schema == pl.Schema(tabulate.CLOCKS)
    assert clocks.table.equals(smd.find_clocks(smd.measure(found, groups)).table)  # groups only explain


def test_a_second_call_takes_them_from_the_report(run, passes, tmp_path):
    out = tmp_path / "r.h5"
    first = smd.analyze(run, output=out)
    second = smd.analyze(run, output=out)
    assert len(passes) == 1
    assert first.clocks.height > 0
    assert second.clocks.equals(first.clocks)
    assert smd.load(out).clocks.equals(first.clocks)
    of = [report.findings.filter(pl.col("stage") == "clocks") for report in (first, second)]
    assert of[0].equals(of[1])
    assert "decay-replayed" in of[0]["code"].to_list()


def test_why_there_is_none_is_kept(tmp_path, passes):
    out = tmp_path / "r.h5"
    place = folder(tmp_path, [{"hidden": s["hidden"]} for s in train(STEPS, 1e-4)])
    first = smd.analyze(place, output=out)
    assert first.clocks.is_empty()
    assert "no direction surely shrinks" in first.provenance["why_no_clock"]
    second = smd.analyze(place, output=out)
    assert len(passes) == 1
    assert second.provenance["why_no_clock"] == first.provenance["why_no_clock"]
    assert "why_no_clock" not in smd.analyze(folder_with_clock(tmp_path)).provenance


def folder_with_clock(tmp_path):
    (tmp_path / "other").mkdir()
    return folder(tmp_path / "other", train(STEPS, 1e-4))


def test_a_wrong_option_costs_no_pass(run, passes):
    with pytest.raises(UsageError):
        smd.analyze(run, settings={"optimizer": "sgd", "lr": "fast"})
    assert not passes
