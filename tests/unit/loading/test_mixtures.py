"""Runs that lie mixed in one folder: by names, and by the angles between checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch

from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.mixtures import separate
from smd_analyze.loading.name_numbers import split_runs, varying


def walk(seed: int, steps: int, size: int = 200, stride: float = 0.2) -> list[np.ndarray]:
    """Unit vectors of a random walk on the sphere."""
    rng = np.random.default_rng(seed)
    at, out = rng.normal(size=size), []
    for _ in range(steps):
        at = at / np.linalg.norm(at)
        out.append(at)
        at = at + stride * rng.normal(size=size) / np.sqrt(size)
    return out


@pytest.mark.parametrize("stride", [0.01, 0.2, 1.0, 5.0, 50.0])
def test_one_run_stays_whole_however_far_its_steps_go(stride: float) -> None:
    for seed in range(20):
        assert separate([[v] for v in walk(seed, 12, stride=stride)]) == [list(range(12))]


def test_two_and_three_runs_in_turn_are_told_apart() -> None:
    a, b, c = walk(1, 5), walk(2, 5), walk(3, 5)
    assert separate([[v] for pair in zip(a, b, strict=True) for v in pair]) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    three = separate([[v] for triple in zip(a, b, c, strict=True) for v in triple])
    assert sorted(three) == [[0, 3, 6, 9, 12], [1, 4, 7, 10, 13], [2, 5, 8, 11, 14]]


def test_a_single_stranger_is_found_and_a_copy_is_none() -> None:
    a = walk(1, 7)
    assert separate([[v] for v in [*a[:3], walk(2, 1)[0], *a[3:]]])[1] == [3]
    assert separate([[v] for v in [a[0], a[1], a[0]]]) == [[0, 1, 2]]


def test_a_run_that_another_one_continues_elsewhere_is_not_cut() -> None:
    assert separate([[v] for v in [*walk(1, 5), *walk(2, 5)]]) == [list(range(10))]  # in sequence, not in turn


def test_interleaved_files_of_two_runs_become_one_run_and_a_finding(tmp_path: Path) -> None:
    for offset, seed in ((0, 1), (5, 2)):
        for i, vector in enumerate(walk(seed, 4, 64)):
            state = {"model": {"w.weight": torch.tensor(vector).reshape(8, 8)}, "step": 10 * i + offset}
            torch.save(state, tmp_path / f"step_{10 * i + offset}.pt")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [0, 10, 20, 30]
    assert [f.code for f in run.findings] == ["mixed-runs"]
    assert "step_5.pt" in run.findings[0].message


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["run1/step_10.pt", "run1/step_20.pt", "run2/step_10.pt", "run2/step_20.pt"], [[0, 1], [2, 3]]),
        (["step_10_exp1.pt", "step_10_exp2.pt", "step_20_exp1.pt", "step_20_exp2.pt"], [[0, 2], [1, 3]]),
        (["seed1_5.pt", "seed1_9.pt", "seed2_5.pt", "seed2_9.pt"], [[0, 1], [2, 3]]),
        (["rank0_5.pt", "rank1_5.pt", "rank0_6.pt", "rank1_6.pt"], [[0, 2], [1, 3]]),
        (["version_0/step=1.ckpt", "version_0/step=2.ckpt", "version_1/step=3.ckpt"], [[0, 1, 2]]),  # resumed
        (["m_2024-01-01.pt", "m_2024-01-02.pt"], [[0, 1]]),
    ],
)
def test_runs_are_split_by_numbers_that_count_nothing(names: list[str], parts: list[list[int]]) -> None:
    assert split_runs(names) == parts


def test_versions_with_the_same_steps_are_two_runs(tmp_path: Path) -> None:
    for version in (0, 1):
        (tmp_path / f"version_{version}").mkdir()
        for step in (1, 2, 3):
            torch.save({"w.weight": torch.randn(4, 4)}, tmp_path / f"version_{version}" / f"epoch=0-step={step}.ckpt")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [1, 2, 3]
    assert all("version_0" in c.path for c in run.checkpoints)
    assert [(f.code, f.severity) for f in run.findings] == [("another-sequence", "warning")]
    assert all("version_1" in c.path for c in load_run(tmp_path, run="version_1").checkpoints)


def test_a_metric_beside_the_epoch_is_no_step() -> None:
    for names in (["epoch_1_acc_90.pt", "epoch_2_acc_80.pt"], ["epoch_1_90.pt", "epoch_2_80.pt"]):
        assert [(n.word, n.value) for n in varying(names) or []] == [("epoch", 1), ("epoch", 2)]
