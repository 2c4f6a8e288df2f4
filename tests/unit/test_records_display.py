"""Records show themselves from what they hold: short, escaped, long tables shortened."""

import polars as pl
import pytest
import torch
from synthetic_report import make_report

import smd_analyze as smd
from smd_analyze.records.finding import Finding
from smd_analyze.records.report import Report
from smd_analyze.records.run import Checkpoint, Run


def make_run(count: int) -> Run:
    checkpoints = tuple(Checkpoint(10 * i, f"<b>{i}.pt", "torch zip", "plain torch", {}) for i in range(count))
    finding = Finding("stray-file", "warning", "x & y", "is left out")
    return Run("run", checkpoints, "step in the file", "optimizer steps", (finding,))


def test_a_run_in_words():
    assert repr(make_run(0)) == "Run('run': no checkpoints)"
    text = repr(make_run(40))
    assert "40 checkpoints, optimizer steps 0 to 390" in text
    assert "warning: x & y: is left out" in text


def test_a_run_in_a_notebook_is_short_and_escaped():
    html = make_run(40)._repr_html_()
    assert "&lt;b&gt;0.pt" in html
    assert "<b>0.pt" not in html
    assert "x &amp; y" in html
    assert html.count("<tr>") == 1 + 12 + 1 + 12
    assert "16 more" in html


@pytest.mark.parametrize("layers", [5, 60])
def test_a_report_in_words_and_in_a_notebook(layers):
    report: Report = make_report(layers)
    assert repr(report).startswith(report.verdict)
    assert len(repr(report).splitlines()) <= 26
    html = report._repr_html_()
    assert "θ₁ measured [rad/step]" in html
    assert "None" not in html
    assert "nan" not in html
    first = report.layers.filter(pl.col("weight_norm").is_not_null()).row(0, named=True)
    assert first["group"] in html
    assert f"{first['weight_norm']:.4g}" in html


def test_every_stage_shows_itself_in_few_lines(tmp_path):
    for step in (0, 100, 200):
        weights = {
            f"layer{i}.weight": torch.randn(4, 6, generator=torch.manual_seed(i)) * (1 - step / 1e3) for i in range(40)
        }
        torch.save(weights, tmp_path / f"step_{step}.pt")
    run = smd.load_run(tmp_path)
    groups = smd.find_groups(run)
    stats = smd.measure(run, groups)
    clocks = smd.find_clocks(stats)
    schedule = smd.resolve_schedule(run, clocks)
    for record, word in (
        (groups, "40 groups of 40"),
        (stats, "40 groups at 3"),
        (clocks, "Clocks: "),
        (schedule, "2 rows"),
    ):
        assert word in repr(record)
        assert len(repr(record)) < 3000
