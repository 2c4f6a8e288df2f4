import io
import json
import subprocess
import sys
from dataclasses import replace

import polars as pl
import pytest
from rich.console import Console
from synthetic_report import empty_report, layer_names, make_report

from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Group, Groups, ParameterVerdict
from smd_analyze.records.run import Checkpoint, Run, Setting
from smd_analyze.views import tables


def shown(show, *things, width=100, **options):
    file = io.StringIO()
    show(*things, Console(file=file, width=width), **options)
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_net_of_20_layers_fits_the_terminal(width):
    text = shown(tables.print_report, make_report(20), width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    for name in layer_names(20) if width >= 100 else ():
        assert any(line.startswith(name) for line in text.splitlines()), name
    assert "agrees" in text
    assert "mrad/step" in text
    assert "relaxing" in text


def test_long_names_are_shortened_in_the_middle_and_the_state_stays():
    report = make_report(8)
    long = pl.col("group").str.replace("layer", "module.backbone.encoder.stages.residual_block_layer")
    report = replace(report, layers=report.layers.with_columns(long))
    text = shown(tables.print_report, report)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "modul" in text
    assert "…" in text
    assert ".conv2" in text
    assert "relaxing" in text


def test_no_nan_is_ever_shown():
    report = make_report(8)
    numbers = [name for name, dtype in report.layers.schema.items() if dtype == pl.Float64]
    for value in (None, float("nan")):
        empty = report.layers.with_columns(pl.lit(value, dtype=pl.Float64).alias(name) for name in numbers)
        text = shown(tables.print_report, replace(report, layers=empty))
        assert "nan" not in text.lower()
        assert "None" not in text
        assert "–" in text


def test_layers_that_are_not_invariant_stand_apart_below():
    lines = shown(tables.print_report, make_report(8)).splitlines()
    title = next(i for i, line in enumerate(lines) if "theory as reference only" in line)
    fc = next(i for i, line in enumerate(lines) if line.startswith("fc"))
    first = next(i for i, line in enumerate(lines) if line.startswith("conv1"))
    assert first < title < fc


def test_60_layers_are_summarised_and_verbose_shows_them_all():
    report = make_report(60)
    text = shown(tables.print_report, report)
    assert "(28 layers)" in text
    assert "layer{1..4}" in text.replace("\n", "")
    assert len(text.splitlines()) < 40
    every = shown(tables.print_report, report, verbose=1)
    starts = {line.split(" ")[0] for line in every.splitlines()}
    assert set(layer_names(60)) <= starts


def test_the_summary_is_the_median_and_the_range():
    report = make_report(60)
    text = shown(tables.print_report, report, width=140)
    chosen = report.layers.filter(pl.col("group").str.ends_with("conv1") & (pl.col("status") != "dead"))
    chosen = chosen.filter(pl.col("group") != "conv1")["weight_norm"]
    assert f"{chosen.median():.3f}" in text
    assert f"{chosen.min():.2f}…{chosen.max():.2f}" in text


def test_states_of_one_kind_are_counted_without_their_numbers():
    report = make_report(60)
    changing = [f"norm stationary since step {i}000; rotation agrees: 1.0{i % 9} ± 0.02" for i in range(60)]
    report = replace(report, layers=report.layers.with_columns(pl.Series("state", changing)))
    text = shown(tables.print_report, report, width=160)
    assert "norm stationary; rotation agrees" in text
    assert "since step 5000" not in text


def test_an_empty_report_and_a_name_that_looks_like_markup():
    assert "No layer was analysed." in shown(tables.print_report, empty_report())
    report = make_report(3)
    report = replace(report, layers=report.layers.with_columns(pl.lit("qkv[0:64][bold]").alias("group")))
    assert "qkv[0:64][bold]" in shown(tables.print_report, report)


def test_small_angles_are_shown_in_a_unit_that_fits():
    report = make_report(3)
    tiny = [pl.col(f"{name}{end}") * 1e-3 for name in ("implied", "measured") for end in ("", "_low", "_high")]
    layers = report.layers.with_columns(*tiny, pl.col("equilibrium") * 1e-3)
    assert "µrad/step" in shown(tables.print_report, replace(report, layers=layers))


def test_findings_are_counted_and_grouped_by_code():
    text = shown(tables.print_findings, make_report(3).findings)
    assert text.splitlines()[0] == "1 error · 2 warnings · 1 note"
    assert text.count("settings-conflict") == 1
    assert text.count("→ say --weight-decay") == 1
    assert text.index("not-analysed") < text.index("settings-conflict") < text.index("stray-file")
    many = [Finding("odd", "note", f"file {i}", "is odd", "mend it") for i in range(9)]
    assert "6 more" in shown(tables.print_findings, many)
    assert "file 8" in shown(tables.print_findings, many, verbose=1)
    assert shown(tables.print_findings, []) == ""


def make_run(count):
    def checkpoint(step):
        rate = Setting("learning_rate", 0.1 if step < 1000 else 0.01, None, "", "in force", f"step_{step}.pt")
        word = Setting("optimizer", None, "sgd", "0", "inferred", "momentum buffers")
        return Checkpoint(step, f"ckpts/step_{step}.pt", "torch zip", "plain", {}, (rate, word), 12_345_678)

    steps = range(0, 100 * count, 100)
    return Run("ckpts/", tuple(map(checkpoint, steps)), "names", "optimizer steps", aliases={"last": "step_900.pt"})


def test_a_long_run_is_shortened_in_the_middle():
    text = shown(tables.print_run, make_run(40))
    assert "28 more; -v shows all" in text
    assert "step_3900.pt" in text
    assert "step_2000.pt" not in text
    assert "0.1 … 0.01" in text
    assert "12.3 MB" in text
    assert "last is step_900.pt" in text
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "step_2000.pt" in shown(tables.print_run, make_run(40), verbose=1)
    assert "0 checkpoints" in shown(tables.print_run, make_run(0))


def make_groups(layers):
    verdicts = tuple(
        ParameterVerdict(f"layer{i % 4}.{i // 4}.conv{j}.weight", "", (8, 8, 3, 3), "conv", "0", "invariant", "unit",
                         f"layer{i}", "proved", "followed by a batch normalization")
        for i in range(layers) for j in (1, 2)
    )  # fmt: skip
    head = ParameterVerdict("fc.weight", "", (10, 8), "linear", "0", "not invariant", "", "fc", "proved", "the output")
    fc = Group("fc", (), "not invariant", "", 10, 80, "0", "proved", "linear", "the output")
    return Groups((*verdicts, head), (fc,), "names and shapes")


def test_groups_of_300_parameters_are_readable():
    text = shown(tables.print_groups, make_groups(150))
    lines = text.splitlines()
    assert len(lines) < 20
    assert max(map(len, lines)) <= 100
    assert "301 parameters" in lines[0]
    assert [line.split()[:2] for line in lines[1:3]] == [["300", "invariant"], ["1", "not"]]
    assert sum(" 150 " in line for line in lines) == 2
    narrow = shown(tables.print_groups, make_groups(150), width=60)
    assert max(map(len, narrow.splitlines())) <= 60
    every = shown(tables.print_groups, make_groups(150), verbose=1)
    assert len(every.splitlines()) > 300


def test_the_console_of_a_pipe_has_100_columns_and_no_colour(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    console = tables.console()
    assert console.width == 100
    tables.print_report(make_report(3), console)
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "72")
    assert tables.console().width == 72


def test_an_old_locale_is_no_reason_to_fail(tmp_path):
    code = "from smd_analyze.views import tables; tables.console().print('‖w‖ θ₁')"
    env = {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"?w? ??\n"


def test_tables_import_neither_matplotlib_nor_torch():
    code = (
        "import sys, json, smd_analyze.views.tables, smd_analyze.views.json;"
        "print(json.dumps([m for m in ('matplotlib', 'seaborn', 'torch', 'h5py', 'polars') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == []


def test_one_state_for_all_that_are_not_invariant_is_said_once():
    report = make_report(8)
    free = report.layers.with_columns(
        pl.lit("not invariant").alias("status"), pl.lit("theory is no measure").alias("state")
    )
    text = shown(tables.print_report, replace(report, layers=free))
    assert text.count("theory is no measure") == 1
    assert "  state" not in text


def test_columns_without_any_number_are_left_out():
    report = make_report(8)
    without = report.layers.with_columns(pl.lit(None, dtype=pl.Float64).alias("measured"))
    text = shown(tables.print_report, replace(report, layers=without))
    assert "θ₁ implied" in text
    assert "θ₁ measured" not in text


def test_progress_is_silent_where_nobody_watches(capsys):
    from smd_analyze.views.progress import bar

    with bar() as tell:
        tell(0.5, "reading [bold]")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip() == ""
