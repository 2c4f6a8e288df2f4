"""Megatron-LM's older layout: one torch file per tensor-parallel rank."""

import argparse
from pathlib import Path

import pytest
import torch

from smd_analyze.errors import NothingToAnalyse
from smd_analyze.loading.discovery import load_run

QKV, OUT = "encoder.layers.0.self_attention.query_key_value", "encoder.layers.0.self_attention.dense"


def model(step: int) -> dict[str, torch.Tensor]:
    return {
        f"{QKV}.weight": torch.arange(96, dtype=torch.float32).reshape(12, 8) * step,
        f"{QKV}.bias": torch.arange(12, dtype=torch.float32) * step,
        f"{OUT}.weight": torch.arange(64, dtype=torch.float32).reshape(8, 8) - step,
        f"{OUT}.bias": torch.arange(8, dtype=torch.float32) + step,
        "encoder.final_layernorm.weight": torch.ones(8) * step,
    }


def write(root: Path, step: int, ranks: int = 2) -> None:
    for rank in range(ranks):
        folder = root / f"iter_{step:07d}" / f"mp_rank_{rank:02d}"
        folder.mkdir(parents=True)
        whole = model(step)
        cut = {n: v.tensor_split(ranks, 0)[rank].clone() for n, v in whole.items() if QKV in n}
        cut |= {f"{OUT}.weight": whole[f"{OUT}.weight"].tensor_split(ranks, 1)[rank].clone()}
        layers = {n.removeprefix("encoder."): cut.get(n, v) for n, v in whole.items()}
        groups = [{"lr": 0.1, "weight_decay": 0.3, "betas": (0.9, 0.95), "params": [0, 1, 2, 3, 4]}]
        made = {
            "args": argparse.Namespace(tensor_model_parallel_size=ranks, iteration=step),
            "iteration": step,
            "model": {"encoder": layers},
            "optimizer": {"optimizer": {"state": {0: {"exp_avg": torch.ones(6, 8)}}, "param_groups": groups}},
        }
        torch.save(made, folder / "model_optim_rng.pt")


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_ranks_are_joined(tmp_path: Path, ranks: int) -> None:
    for step in (5, 10):
        write(tmp_path, step, ranks)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 10]
    for checkpoint in run.checkpoints:
        assert set(checkpoint.parameters) == set(model(checkpoint.step))
        for name, value in model(checkpoint.step).items():
            assert torch.equal(checkpoint.parameters[name].load(), value)
        found = {(s.name): s.value for s in checkpoint.settings if s.kind == "in force"}
        assert (found["learning_rate"], found["weight_decay"]) == (0.1, 0.3)
    cut = run.checkpoints[0].parameters[f"{QKV}.weight"]
    assert (cut.extent is None) == (ranks > 1)
    assert run.checkpoints[0].parameters["encoder.final_layernorm.weight"].extent is not None


def test_a_missing_rank_is_said(tmp_path: Path) -> None:
    write(tmp_path, 5, 2)
    write(tmp_path, 10, 2)
    (tmp_path / "iter_0000005" / "mp_rank_01" / "model_optim_rng.pt").unlink()
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [10]
    assert any("missing" in f.message for f in run.findings)


def test_pipeline_stages_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, 5, 2)
    for rank in (0, 1):
        (tmp_path / "iter_0000005" / f"mp_rank_{rank:02d}").rename(
            tmp_path / "iter_0000005" / f"mp_rank_{rank:02d}_000"
        )
    with pytest.raises(NothingToAnalyse, match="Megatron"):
        load_run(tmp_path)
