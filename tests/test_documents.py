"""Documents are tests: what README shows must run, and what the command line offers must be explained."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import typer

from smd_analyze.cli import commands
from smd_analyze.schedule.settings import read_settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = README + "".join(p.read_text() for p in (ROOT / "docs").glob("*.md"))


def blocks(language: str) -> list[str]:
    return [m[1] for m in re.finditer(rf"^ *```{language}\n(.*?)^ *```", README, re.S | re.M)]


def test_the_two_commands_are_single_lines():
    assert len(blocks("sh")) == 2
    assert all(block.count("\n") == 1 for block in blocks("sh"))


def test_the_python_of_readme_runs(tmp_path, monkeypatch):
    mpl.use("Agg")
    (tmp_path / "sample_runs").symlink_to(ROOT / "sample_runs")
    monkeypatch.chdir(tmp_path)
    shown = [block for block in blocks("python") if "import smd_analyze" in block]
    assert shown
    for block in shown:
        exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "report.h5").stat().st_size > 10_000


def test_the_settings_file_of_readme_is_valid(tmp_path):
    (toml,) = blocks("toml")
    path = tmp_path / "run.toml"
    path.write_text(re.sub(r"^  ", "", toml, flags=re.M))
    said = read_settings(path)
    assert said.values["optimizer"] == "sgd"
    assert said.schedule is not None
    assert said.groups["*.bias"]["weight_decay"] == 0


@pytest.mark.parametrize("app", [commands.main_command, commands.sisters])
def test_every_option_has_help(app):
    command = typer.main.get_command(app)
    for one in getattr(command, "commands", {"": command}).values():
        for option in one.params:
            assert getattr(option, "help", None), f"{one.name} {option.name} says nothing of itself"


def test_no_link_of_readme_is_broken():
    local = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if not t.startswith("http")]
    assert local
    assert not [target for target in local if not (ROOT / target).exists()]


def test_the_table_of_readme_is_what_the_command_prints():
    """Word for word but for the numbers, which may differ in their last digit from machine to machine."""
    (shown,) = blocks("text")
    model = ["--model", "sample_runs/make.py:resnet", "--inputs", "sample_runs/make.py:resnet_inputs"]
    code = f"from smd_analyze.cli import main; main(['sample_runs/resnet_sgdm', '-q', *{model!r}])"
    wide = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=wide, capture_output=True, text=True, check=True)
    words = [set(re.findall(r"[^\W\d][^\s\d]*", text)) for text in (shown, done.stdout)]
    assert words[0] == words[1]
    assert "layer2.conv1" in shown


def test_the_schedule_of_readme_is_what_the_command_prints(tmp_path):
    """The two commands shown, and every number of their table to three digits; what is left out follows after it."""
    (shown,) = blocks("console")
    wide = {**os.environ, "COLUMNS": "100"}
    make = [sys.executable, str(ROOT / "sample_runs" / "weights_only.py"), "weights_only"]
    subprocess.run(make, cwd=tmp_path, check=True)
    code = "from smd_analyze.cli import main; main(['schedule', 'weights_only', '-q'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=wide, capture_output=True, text=True, check=True
    )
    commands_shown = [line for line in shown.splitlines() if line.startswith("$")]
    assert commands_shown == [
        "$ python sample_runs/weights_only.py weights_only",
        "$ smd-analyze schedule weights_only",
    ]
    lines = [line.split() for line in shown.splitlines() if not line.startswith("$")]
    printed = [line.split() for line in done.stdout.splitlines()][: len(lines)]
    assert [[word[:4] for word in line] for line in lines] == [[word[:4] for word in line] for line in printed]
