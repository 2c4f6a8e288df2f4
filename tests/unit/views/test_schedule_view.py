"""The schedule command's tables and figure, on tables of the contract's columns."""

import io
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from synthetic_report import make_report

from smd_analyze.analysis import stretches
from smd_analyze.errors import CannotWrite
from smd_analyze.schedule.account import COLUMNS
from smd_analyze.views import plots
from smd_analyze.views.plots_schedule import save_schedule
from smd_analyze.views.schedule import print_schedule
from smd_analyze.views.schedule_words import measured, rate

EDGES = tuple(range(0, 10_001, 1000))
CLOCK = "fc.weight"


def rows(values, group="0", told=None, change=None, **more):
    """Rows of the schedule table; `values` are rates per step, None where none was read."""
    out, number = [], 0
    for i, (a, b, value) in enumerate(zip(EDGES, EDGES[1:], values, strict=False)):
        number += i > 0 and value != values[i - 1]
        row = dict.fromkeys(COLUMNS) | {
            "parameter_group": group, "step_from": a, "step_to": b, "stretch": number, "optimizer": "sgd",
            "decoupled": False, "momentum": 0.9, "momentum_assumed": False, "source": f"clock of {CLOCK}",
            "told_source": "opt.pt" if told else "unknown", "read_off": CLOCK if value is not None else "",
            "shape": "", "sum_decay": None, "sum_decay_low": None, "sum_decay_high": None,
        }  # fmt: skip
        if value is not None:
            row |= {
                "decay_per_step": value,
                "decay_per_step_low": value * 0.9999,
                "decay_per_step_high": value * 1.0001,
            }
            sums = {"sum_decay": value * 100, "sum_decay_low": value * 99, "sum_decay_high": value * 101}
            row |= sums
        if told is not None:
            row |= {f"told_decay{end}": told * 100 for end in ("", "_low", "_high")} | {"told_weight_decay": 5e-4}
            row |= {f"told_per_step{end}": told for end in ("", "_low", "_high")}
        if change is not None and a == change[0]:
            row |= dict(zip(("change_step", "change_step_low", "change_step_high"), change[1:], strict=True))
        out.append(row | more)
    return out


def report_of(table, kind="moving", clocks=True, **provenance):
    base = make_report(3)
    names = [r for r in table if r["decay_per_step"] is not None or kind != "moving"] if clocks else []
    clock = [
        {
            "clock": f"{CLOCK} (sum over units)", "parameter": CLOCK, "functional": "sum over units",
            "step_from": r["step_from"], "step_to": r["step_to"], "decay_per_step": r["decay_per_step"],
            "decay_per_step_low": r["decay_per_step_low"], "decay_per_step_high": r["decay_per_step_high"],
            "kind": kind, "directions": 64, "evidence": "reproduced in every bit over 9 steps (one more (or less) no)",
        }
        for r in names
    ]  # fmt: skip
    frame = pl.DataFrame(table, infer_schema_length=None).with_columns(
        pl.col(name).cast(dtype) for name, dtype in COLUMNS.items()
    )
    schema = {"kind": pl.String, "parameter": pl.String}
    made = pl.DataFrame(clock, infer_schema_length=None) if clock else pl.DataFrame(schema=schema)
    return replace(base, schedule=frame, clocks=made, provenance={**base.provenance, **provenance})


def shown(report, width=100, **options):
    file = io.StringIO()
    print_schedule(report, stretches(report), Console(file=file, width=width), **options)
    return file.getvalue()


def flat(text):
    return " ".join(text.split())


DROP = [1e-5] * 4 + [4e-6] + [1e-6] * 5


def test_the_first_sentence_says_what_acted_and_that_no_file_says_so():
    text = shown(report_of(rows([5.0002e-6] * 10, shape="constant")))
    head = flat(text.split("\n\n")[0])
    assert head.startswith("Weight decay acted at ηλ/(1−α) = (5.00020±0.000")
    assert "e-6 per step on fc.weight, steps 0 to 10000" in head
    assert "no file says learning rate or weight decay" in head


def test_files_that_agree_and_files_that_do_not():
    assert "as the files say" in flat(shown(report_of(rows([1e-5] * 10, told=1e-5))))
    text = flat(shown(report_of(rows([1e-5] * 10, told=2e-5))))
    assert "0.500 times what the files say" in text
    assert "the files say that there was none" in flat(shown(report_of(rows([1e-5] * 10, told=0.0))))


def test_no_decay_is_said_with_its_bound():
    table = [row | {"decay_per_step_low": -1e-9, "decay_per_step_high": 2e-9} for row in rows([0.0] * 10, told=1e-5)]
    text = flat(shown(report_of(table, "no decay")))
    assert text.startswith("No weight decay acted on fc.weight, steps 0 to 10000 (at most 2.0e-9 per step)")
    assert "the files say ηλ =" in text


def test_a_drop_has_its_step_and_every_stretch_its_rate():
    text = shown(report_of(rows(DROP, change=(4000, 4333.0, 4332.0, 4334.0))))
    assert "4333.0±1.0" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["0", "–", "4000"] in [line[:3] for line in lines]
    assert any(line[:3] == ["5000", "–", "10000"] and line[3].startswith("0.1000") for line in lines)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
@pytest.mark.parametrize("told", [None, 1e-5])
def test_it_fits_the_terminal(width, told):
    table = rows(DROP, told=told, change=(4000, 4333.0, 4332.0, 4334.0))
    text = shown(report_of([*table, *rows([None] * 10, "no_decay", 0.0)]), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "read" in text or "decay off" in text
    assert "no_decay: no clock speaks for it; by the files it is not decayed" in flat(text)


def test_many_stretches_are_shown_at_both_ends_unless_all_are_asked_for():
    values = list(np.geomspace(1e-5, 1e-6, 10))
    global EDGES
    before, EDGES = EDGES, tuple(range(0, 40_001, 1000))
    try:
        report = report_of(rows(list(np.geomspace(1e-5, 1e-7, 40))))
    finally:
        EDGES = before
    assert "… 28 more stretches; -v shows all" in shown(report)
    assert len(shown(report, verbose=1).splitlines()) > len(shown(report).splitlines()) + 20
    assert "more stretches" not in shown(report_of(rows(values)))


def test_without_clocks_it_says_why():
    text = shown(report_of(rows([None] * 10, told=1e-5), clocks=False, why_no_clock="no direction shrinks"))
    assert text.startswith("Learning rate × weight decay cannot be read off these weights")
    assert "Why none: no direction shrinks." in text
    assert "by the files ηλ =" in text


def test_evidence_loses_its_brackets_unless_all_is_asked_for():
    report = report_of(rows([1e-5] * 10))
    assert "every bit over 9 steps" in shown(report)
    assert "one more" not in shown(report)
    assert "one more" in shown(report, verbose=1)


def test_numbers_have_the_digits_of_their_interval():
    assert measured(5.00023e-6, 5.00017e-6, 5.00029e-6, 1e6) == "5.00023±0.00006"
    assert measured(2.02656e-6, 2.02656e-6, 2.02656e-6, 1e6) == "2.026560"
    assert rate(5.00023e-6, 5.00017e-6, 5.00029e-6) == "(5.00023±0.00006)e-6"


def drawn(ax):
    return [np.asarray(line.get_ydata(), float) for line in ax.lines]


def test_the_figure_draws_both_curves_and_the_jump():
    report = report_of(rows(DROP, told=1e-5, change=(4000, 4333.0, 4332.0, 4334.0)))
    (ax,) = plots.schedule(report).axes
    assert ax.get_yscale() == "log"
    curves = [y for y in drawn(ax) if len(y) == 20]
    assert any(np.allclose(y, np.repeat(DROP, 2)) for y in curves)
    assert any(np.allclose(y, 1e-5) for y in curves)
    assert any(np.allclose(line.get_xdata(), 4333.0) for line in ax.lines)


def test_the_figure_has_a_gap_where_nothing_was_read_and_a_mark_where_nothing_acted():
    values = [1e-5, None, 0.0, *[1e-5] * 7]
    (ax,) = plots.schedule(report_of(rows(values))).axes
    assert any(np.isnan(y).any() for y in drawn(ax))
    assert "no decay" in [text.get_text() for text in ax.figure.legends[0].get_texts()]


def test_the_figure_without_clocks_says_so(tmp_path):
    figure = plots.schedule(make_report(3))
    assert "no decay clock was found" in " ".join(t.get_text() for t in figure.texts)
    assert save_schedule(report_of(rows(DROP)), tmp_path).stat().st_size > 5000
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite):
        save_schedule(report_of(rows(DROP)), tmp_path / "file")
