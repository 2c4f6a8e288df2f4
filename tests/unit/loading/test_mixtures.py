"""Runs that lie mixed in one folder: by names, and by the angles between checkpoints."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.sequences.mixtures import separate
from smd_analyze.loading.sequences.name_numbers import split_runs, varying


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


def saved(folder: Path, name: str, vector: np.ndarray, when: int = 0, **more: int) -> None:
    torch.save({"model": {"w.weight": torch.tensor(vector).reshape(40, -1)}, **more}, folder / name)
    os.utime(folder / name, (10**9 + when, 10**9 + when))


def test_a_folder_that_a_second_run_wrote_over_keeps_the_larger_run(tmp_path: Path) -> None:
    for i, vector in enumerate(walk(1, 10, 1600)):
        saved(tmp_path, f"ckpt_{10 * (i + 1)}.pt", vector, when=i)
    for i, vector in enumerate(walk(2, 4, 1600)):
        saved(tmp_path, f"ckpt_{10 * (i + 1)}.pt", vector, when=100 + i)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [50, 60, 70, 80, 90, 100]
    assert [f.code for f in run.findings] == ["mixed-runs"]
    assert "older than those before" in run.findings[0].message


def test_the_same_in_the_order_of_time_is_only_said(tmp_path: Path) -> None:
    for i, vector in enumerate([*walk(1, 5, 1600), *walk(2, 5, 1600)]):
        saved(tmp_path, f"ckpt_{10 * (i + 1)}.pt", vector, when=i)
    run = load_run(tmp_path)
    assert len(run.checkpoints) == 10
    assert [f.code for f in run.findings] == ["run-changes"]


def test_a_file_of_another_run_at_the_beginning_is_known_by_weights_and_steps(tmp_path: Path) -> None:
    vectors = [*walk(2, 1, 1600), *walk(1, 4, 1600)]
    for n, step, vector in zip((5, 10, 40, 70, 100), (285, 35250, 141000, 246750, 352500), vectors, strict=True):
        saved(tmp_path, f"cp-{n:04d}.pt", vector, step=step)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [35250, 141000, 246750, 352500]
    assert [f.code for f in run.findings] == ["mixed-runs"]


def test_an_initial_state_of_which_nothing_is_left_stays(tmp_path: Path) -> None:
    for i, vector in enumerate([*walk(2, 1, 1600), *walk(1, 5, 1600)]):
        saved(tmp_path, f"step_{100 * i}.pt", vector, when=i)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [0, 100, 200, 300, 400, 500]
    assert not {"mixed-runs", "run-changes"} & {f.code for f in run.findings}


def test_one_file_for_each_seed_is_no_sequence(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        (tmp_path / f"seed{seed}").mkdir()
        saved(tmp_path / f"seed{seed}", "best.ckpt", walk(seed, 1, 400)[0], global_step=90 + seed)
    run = load_run(tmp_path)
    assert [Path(c.path).parent.name for c in run.checkpoints] == ["seed1"]
    assert [f.code for f in run.findings] == ["no-sequence"]
    assert len(run.runs) == 3


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2)])
def test_a_second_folder_belongs_to_the_run_if_its_weights_go_on(tmp_path: Path, seeds: tuple[int, int]) -> None:
    whole = walk(1, 6, 1600)
    parts = [whole[:3], whole[3:] if seeds[0] == seeds[1] else walk(2, 3, 1600)]
    for i, part in enumerate(parts):
        (tmp_path / f"2024-03-0{i + 1}").mkdir()
        for j, vector in enumerate(part):
            saved(tmp_path / f"2024-03-0{i + 1}", f"ckpt_{10 * (3 * i + j)}.pt", vector)
    assert len(load_run(tmp_path).checkpoints) == (6 if seeds[0] == seeds[1] else 3)


def test_a_sequence_that_goes_on_from_the_end_of_another_is_said(tmp_path: Path) -> None:
    whole = walk(1, 8, 1600)
    for i, vector in enumerate(whole):
        (tmp_path / f"run_{i // 4}").mkdir(exist_ok=True)
        saved(tmp_path / f"run_{i // 4}", f"epoch_{i % 4}.pt", vector)
    run = load_run(tmp_path)
    assert len(run.checkpoints) == 4
    assert "run_1/epoch_#.pt seems to go on from the end of run_0/epoch_#.pt" in run.findings[0].message


def test_steps_within_epochs_are_one_run(tmp_path: Path) -> None:
    for i, vector in enumerate(walk(1, 6, 1600)):
        saved(tmp_path, f"net-{1 + i // 3}_{500 * (1 + i % 3)}.ckpt", vector)
    run = load_run(tmp_path)
    assert [Path(c.path).name for c in run.checkpoints][2:4] == ["net-1_1500.ckpt", "net-2_500.ckpt"]
    assert run.ordered_by == "epoch, then number within it, in the file name"


@pytest.mark.parametrize(("rate", "warm"), [(0.05, True), (1.0, False), (1.0, True)])
def test_honest_trainings_are_not_cut(rate: float, warm: bool) -> None:
    """Normalized weights at a high rate, with decay and with warm restarts: directions are forgotten, no run is cut."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(16, 32, bias=False), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), torch.nn.Linear(32, 4))  # noqa: E501  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=0.02)
    inputs = torch.randn(256, 16)
    targets = torch.randint(0, 4, (256,))
    directions = []
    for step in range(73):
        if step % 6 == 0:
            vectors = [p.detach().double().flatten().numpy() for p in net.parameters() if p.ndim > 1]
            directions.append([v / np.linalg.norm(v) for v in vectors])
        optimizer.param_groups[0]["lr"] = rate * (1 - (step % 18) / 18 if warm else 1)
        chosen = torch.randint(0, 256, (16,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs[chosen]), targets[chosen]).backward()
        optimizer.step()
    for every in (directions, directions[::2], directions[1::3], [directions[0], *directions[5:]]):
        assert separate(every) == [list(range(len(every)))]


def test_runs_that_a_pattern_put_together_are_cut_by_their_weights(tmp_path: Path) -> None:
    for seed, names in ((1, ("v1 a 10.pt", "v1 a 20.pt", "v1 a 30.pt")), (2, ("v2_40.pt", "v2_50.pt"))):
        for name, vector in zip(names, walk(seed, 3, 1600), strict=False):
            saved(tmp_path, name, vector)
    run = load_run(tmp_path, step_pattern=r"(\d+)\.pt")
    assert [c.step for c in run.checkpoints] == [10, 20, 30]
    assert len(run.runs) == 2
