"""The house rules that a machine can hold: import directions, light start, types, lint, size of the rooms."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
HEAVY = ("torch", "polars", "h5py", "scipy", "numba", "matplotlib", "seaborn")


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_imports_go_one_way():
    assert "0 broken" in run(str(BIN / "lint-imports"))


def test_types_hold():
    run(str(BIN / "basedpyright"), "--pythonpath", sys.executable)


def test_lint_is_clean():
    run(str(BIN / "ruff"), "check", ".")


def test_format_is_clean():
    run(str(BIN / "ruff"), "format", "--check", ".")


@pytest.mark.parametrize("arguments", [["--help"], ["ls", "--help"], ["groups", "--help"], ["--version"]])
def test_help_is_light(arguments):
    """`--help` must be instant: it may load none of the heavy libraries."""
    code = (
        "import sys; from smd_analyze.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as e: assert e.code == 0\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run(sys.executable, "-c", code).rstrip().endswith("LOADED []")


def test_analysis_without_a_model_never_imports_torch(tmp_path):
    """torch costs seconds to import; reading checkpoints and measuring them on the CPU needs none of it."""
    code = (
        "import sys; from smd_analyze.cli import main\n"
        f"try: main(['sample_runs/resnet_sgdm', '-q', '-o', {str(tmp_path / 'r.h5')!r}])\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        "print('LOADED', [m for m in ('torch', 'matplotlib') if m in sys.modules])"
    )
    assert run(sys.executable, "-c", code).rstrip().endswith("LOADED []")


def test_rooms_are_small():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "smd_analyze").rglob("*.py")
        if (lines := path.read_text().count("\n")) > 400
    }
    assert not long, f"more than one idea in {long}?"
