"""Ranks that saved their own parts with torch.save: DTensors on meshes, ShardedTensors, flat vectors, missing ranks."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from smd_analyze.errors import DamagedFile, NothingToAnalyse, UnsafeFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.formats.rank_files import claims, open_folder


@pytest.fixture
def rank_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    """Makes this process one rank of a group that only pretends to be there."""

    def become(rank: int, world: int) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()
        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield become
    if dist.is_initialized():
        dist.destroy_process_group()


def weights(step: int) -> dict[str, torch.Tensor]:
    return {
        "a.weight": torch.arange(35, dtype=torch.float32).reshape(5, 7) * step + 1,
        "a.bias": torch.arange(5, dtype=torch.float32) * step,
        "norm.weight": (torch.arange(3, dtype=torch.float32) * step + 2).to(torch.bfloat16),
    }


def chunk(tensor: torch.Tensor, count: int, index: int, axis: int) -> torch.Tensor:
    """torch.chunk's part, empty where there are not enough."""
    parts = tensor.chunk(count, axis)
    return parts[index] if index < len(parts) else tensor.narrow(axis, 0, 0)


def dtensor(tensor: torch.Tensor, mesh: Any, cuts: tuple[int | None, ...]) -> DTensor:
    """A rank's part of a tensor, cut along an axis (or not) per axis of the mesh."""
    local = tensor
    for number, axis in enumerate(cuts):
        if axis is not None:
            local = chunk(local, mesh.size(number), mesh.get_coordinate()[number], axis)
    placements = [Replicate() if axis is None else Shard(axis) for axis in cuts]
    shape, stride = tensor.shape, tensor.stride()
    return DTensor.from_local(local.clone(), mesh, placements, run_check=False, shape=shape, stride=stride)


def save(folder: Path, step: int, become: Callable[[int, int], None], mesh_shape: tuple[int, ...], cuts: Any) -> None:
    """verl's actor folder."""
    folder.mkdir(parents=True)
    world = int(torch.tensor(mesh_shape).prod())
    for rank in range(world):
        become(rank, world)
        mesh = init_device_mesh("cpu", mesh_shape)
        model: dict[str, Any] = {}
        moments: dict[int, Any] = {}
        for number, (name, tensor) in enumerate(weights(step).items()):
            own = cuts if tensor.ndim > 1 else tuple(axis if axis == 0 else None for axis in cuts)
            model[name] = dtensor(tensor, mesh, own)
            moments[number] = {"step": torch.tensor(float(step)), "exp_avg": dtensor(tensor * 2, mesh, own)}
        groups = [{"lr": 0.5, "weight_decay": 0.25, "betas": (0.9, 0.95), "params": [0, 1, 2]}]
        ending = f"world_size_{world}_rank_{rank}.pt"
        torch.save(model, folder / f"model_{ending}")
        torch.save({"state": moments, "param_groups": groups}, folder / f"optim_{ending}")
        torch.save({"lr_scheduler": {"last_epoch": step, "base_lrs": [0.5]}}, folder / f"extra_state_{ending}")


@pytest.mark.parametrize(
    ("mesh", "cuts"), [((4,), (0,)), ((2,), (1,)), ((2, 2), (0, 1)), ((2, 3), (None, 0)), ((1,), (0,))]
)
def test_parts_on_a_mesh_are_put_together(tmp_path: Path, rank_of: Any, mesh: Any, cuts: Any) -> None:
    for step in (5, 10):
        save(tmp_path / f"global_step_{step}" / "actor", step, rank_of, mesh, cuts)
    run = load_run(tmp_path)
    assert [(c.step, c.format) for c in run.checkpoints] == [(5, "torch rank files"), (10, "torch rank files")]
    for checkpoint in run.checkpoints:
        assert set(checkpoint.parameters) == set(weights(1))
        for name, tensor in weights(checkpoint.step).items():
            assert torch.equal(checkpoint.parameters[name].load(), tensor)
            assert torch.equal(checkpoint.optimizer_state[name]["exp_avg"].load(), tensor * 2)
        found = {s.name: s.value for s in checkpoint.settings if s.kind == "in force"}
        assert (found["learning_rate"], found["weight_decay"]) == (0.5, 0.25)


def test_a_missing_rank_is_named(tmp_path: Path, rank_of: Any) -> None:
    save(tmp_path / "global_step_5", 5, rank_of, (3,), (0,))
    (tmp_path / "global_step_5" / "model_world_size_3_rank_2.pt").unlink()
    with pytest.raises(NothingToAnalyse, match="model_world_size_3_rank_2.pt of 3 ranks is missing"):
        load_run(tmp_path)


def test_one_ranks_part_alone_is_no_weight(tmp_path: Path, rank_of: Any) -> None:
    save(tmp_path / "x", 5, rank_of, (2,), (0,))
    (tmp_path / "x" / "model_world_size_2_rank_0.pt").rename(tmp_path / "weights.pt")
    with pytest.raises(NothingToAnalyse):
        load_run(tmp_path / "weights.pt")


def test_flat_vectors_are_refused(tmp_path: Path) -> None:
    for rank in (0, 1):
        torch.save({"_flat_param": torch.ones(10), "layer._flat_param": torch.ones(4)}, tmp_path / f"rank{rank}.pt")
    names = claims(str(tmp_path), ["rank0.pt", "rank1.pt"], [])
    with pytest.raises(DamagedFile, match="SHARDED_STATE_DICT"):
        open_folder(str(tmp_path), names, None)


def test_whole_copies_of_every_rank_are_one_model(tmp_path: Path) -> None:
    for rank in (0, 1):
        torch.save(weights(3), tmp_path / f"model_rank{rank}.pt")
    parameters = load_run(tmp_path).checkpoints[0].parameters
    assert torch.equal(parameters["a.weight"].load(), weights(3)["a.weight"])


def test_a_tree_that_unfolds_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smd_analyze.loading.parallel.rank_parts.MOST_NODES", 10_000)
    node: Any = {"x": 1}
    for _ in range(5):
        node = {"again": [node] * 100}
    for rank in (0, 1):
        torch.save(node, tmp_path / f"rank{rank}.pt")
    with pytest.raises(UnsafeFile, match="unfolds"):
        open_folder(str(tmp_path), ["rank0.pt", "rank1.pt"], None)


@pytest.mark.parametrize("name", ["ep0-ba10-rank0.pt", "rank0.pt", "model_step5_rank_0.pt", "model_10.pt"])
def test_other_names_are_left_to_others(name: str) -> None:
    assert claims("x", [name], []) == ()
