"""Every golden sample, saved by the real framework, is read as that framework held it in memory.

`python -m tests.conformance tests/golden/formats` prints the whole comparison.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from smd_analyze.cli import main
from smd_analyze.loading.discovery import load_run

from .claims import claims_of, doubly_claimed
from .comparing import Outcome, compare

GOLDEN = Path(__file__).parents[1] / "golden" / "formats"
NAMES = sorted(p.name.removesuffix(".expected.json") for p in GOLDEN.glob("*.expected.json"))


@cache
def outcome(name: str) -> Outcome:
    """The comparison, made once; skipped where only the library of an extra is missing."""
    found = compare(GOLDEN, name)
    if find_spec("tensorstore") is None and "tensorstore" in found.refusal:
        pytest.skip(found.refusal)
    return found


def test_there_are_samples() -> None:
    assert len(NAMES) > 60
    assert all((GOLDEN / name).is_dir() for name in NAMES)
    assert sum(p.stat().st_size for p in GOLDEN.rglob("*") if p.is_file()) < 6 << 20


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_read_as_its_framework_held_it(name: str) -> None:
    found = outcome(name)
    assert not found.differences
    assert found.counts["arrays equal"] > 0
    assert found.counts["steps equal"] == found.counts["checkpoints"]


@pytest.mark.parametrize("name", NAMES)
def test_no_file_is_claimed_twice_and_every_checkpoint_once(name: str) -> None:
    assert doubly_claimed(str(GOLDEN / name)) == []
    outcome(name)
    for checkpoint in load_run(GOLDEN / name).checkpoints:
        if Path(checkpoint.path).is_file():
            assert len(claims_of(checkpoint.path)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_both_commands_run_on_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    outcome(name)
    for words in (["ls", str(GOLDEN / name)], [str(GOLDEN / name)]):
        with pytest.raises(SystemExit) as end:
            main(words)
        said = capsys.readouterr()
        assert not end.value.code, said.err
        assert said.out.strip()
        assert "Traceback" not in said.out + said.err
