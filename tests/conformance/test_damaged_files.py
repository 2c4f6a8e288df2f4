"""Golden samples with one file cut, half zeroed or flipped: one clear error, or a finding and the rest goes on."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smd_analyze.errors import SmdError
from smd_analyze.loading.discovery import load_run

from .test_golden_formats import GOLDEN, NAMES, outcome

MOST_FILES = 3


def cut_in_half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def second_half_zeroed(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def bytes_flipped(data: bytes) -> bytes:
    """A byte in a hundred, the first ones among them: headers, lengths and names go wrong."""
    rng = np.random.default_rng(len(data))
    array = np.frombuffer(data, np.uint8).copy()
    where = rng.integers(0, len(array), len(array) // 100 + 1)
    array[where] ^= rng.integers(1, 256, len(where)).astype(np.uint8)
    array[rng.integers(0, min(len(array), 400), 2)] ^= 0x81
    return array.tobytes()


def files_of(sample: Path) -> list[Path]:
    """The largest files of a sample, and the smallest: weights, and what indexes them."""
    found = sorted(
        (p for p in sample.rglob("*") if p.is_file() and p.stat().st_size > 40), key=lambda p: p.stat().st_size
    )
    return [*found[:1], *found[-MOST_FILES + 1 :]] if len(found) > MOST_FILES else found


def read_all(sample: Path) -> str:
    """Everything that is read of a sample; what was told about it, "" if nothing."""
    try:
        run = load_run(sample)
        for checkpoint in run.checkpoints:
            for tensor in (*checkpoint.parameters.values(), *checkpoint.buffers.values()):
                assert tensor.read().shape == tensor.shape
    except SmdError as problem:
        return str(problem)
    return " ".join(f"{f.where}: {f.message}" for f in run.findings)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [cut_in_half, second_half_zeroed, bytes_flipped])
def test_damage_breaks_nothing_but_the_file(tmp_path: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    outcome(name)  # skips where an extra is missing
    for number, file in enumerate(files_of(GOLDEN / name)):
        sample = tmp_path / str(number) / name
        shutil.copytree(GOLDEN / name, sample)
        (sample / file.relative_to(GOLDEN / name)).write_bytes(damage(file.read_bytes()))
        read_all(sample)
        shutil.rmtree(sample)


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_cut_short_are_told(tmp_path: Path, name: str) -> None:
    """All files of the first checkpoint: in some folders most bytes belong to nodes that newer ones replaced."""
    outcome(name)
    first = load_run(GOLDEN / name).checkpoints[0]
    shutil.copytree(GOLDEN / name, tmp_path / name)
    for path in first.identity:
        file = tmp_path / name / Path(path).relative_to(GOLDEN / name)
        file.write_bytes(cut_in_half(file.read_bytes()))
    told = read_all(tmp_path / name)
    assert any(Path(path).name in told for path in (first.path, *first.identity))
