"""What the numbers rest on, in two lines, and findings that the screen says only once."""

import io

import pytest
from rich.console import Console
from synthetic_report import empty_report
from test_schedule_view import report_of, rows

from smd_analyze.analysis import stretches
from smd_analyze.cli import SISTERS
from smd_analyze.records.finding import Finding
from smd_analyze.views.basis import TOLD_ABOVE, lines_of_basis
from smd_analyze.views.findings import print_findings

LENT = "clock of fc.weight, assumed to hold here; SGD inferred from it; "


def basis(**more):
    report = report_of(rows([1e-4] * 10, **more))
    return list(lines_of_basis(report, stretches(report)))


def printed(found, **options):
    file = io.StringIO()
    print_findings(found, Console(file=file, width=100), **options)
    return file.getvalue()


def test_what_is_assumed_is_said_beside_what_was_read():
    told, words = basis(source=LENT + "momentum 0.9 assumed", momentum_assumed=True)
    assert told.startswith("Weight decay acted")
    assert words.startswith("Read off the weights as well: SGD. Assumed: momentum 0.9 (")
    assert words.endswith("other tensors decay as fc.weight does.")


def test_a_momentum_that_was_read_is_no_assumption():
    _, words = basis(source=LENT + "momentum 0.9, read off steps 0 to 150")
    assert words == ("Read off the weights as well: SGD, momentum 0.9. Assumed: other tensors decay as fc.weight does.")


def test_an_unknown_optimizer_says_what_would_help():
    _, words = basis(optimizer=None, decoupled=None, momentum=None)
    assert "--optimizer adamw" in words


def test_a_clock_that_files_explain_takes_one_line_and_no_clock_none():
    assert len(basis()) == 1
    report = empty_report()
    assert list(lines_of_basis(report, stretches(report))) == []


def test_codes_that_say_the_same_share_an_entry_and_places_are_seen_from_the_run():
    found = [Finding(code, "warning", "runs/a", "nothing is known", "say it") for code in ("missing-a", "missing-b")]
    found += [Finding("odd", "warning", "runs/a/x.pt", "is odd"), Finding("odd", "warning", "runs/ab/y.pt", "is odd")]
    text = printed(found, root="runs/a")
    assert "warning missing-a, missing-b\n" in text
    assert text.count("nothing is known") == 1
    assert text.splitlines()[0] == "3 warnings"
    assert "  x.pt: is odd" in text
    assert "  runs/ab/y.pt" in text


def test_what_is_said_above_is_only_counted():
    found = [Finding("momentum-assumed", "warning", "momentum", "0.9 is assumed", "--momentum")]
    text = printed(found, above=TOLD_ABOVE)
    assert "1 note on what is assumed" in text
    assert "0.9 is assumed" not in text
    assert "0.9 is assumed" in printed(found)


@pytest.mark.parametrize("name", SISTERS)
def test_quiet_may_stand_before_the_sister(name, tmp_path, capsys):
    from smd_analyze.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["-q", name, str(tmp_path)])
    assert ended.value.code == 3
    assert "holds no checkpoints" in capsys.readouterr().err
