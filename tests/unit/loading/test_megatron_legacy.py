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


def stages(
    root: Path, step: int, tensor: int, pipeline: int, virtual: int = 1, layers: int = 4
) -> dict[str, torch.Tensor]:
    """Ranks of a pipeline, each numbering its layers from zero; returns the whole model."""
    whole: dict[str, torch.Tensor] = {"embedding.word_embeddings.weight": torch.randn(8, 4)}
    for i in range(layers):
        whole[f"decoder.layers.{i}.mlp.linear_fc1.weight"] = torch.randn(8, 4)
        whole[f"decoder.layers.{i}.mlp.linear_fc2.weight"] = torch.randn(4, 4)
    whole["decoder.final_layernorm.weight"] = torch.randn(4)
    per = layers // (pipeline * virtual)
    for t in range(tensor):
        for p in range(pipeline):
            made: dict[str, object] = {}
            for v in range(virtual):
                own: dict[str, torch.Tensor] = {}
                if p == v == 0:
                    own |= {
                        "embedding.word_embeddings.weight": whole["embedding.word_embeddings.weight"].chunk(tensor)[t]
                    }
                for i in range(per):
                    number = v * layers // virtual + p * per + i
                    gate, up = whole[f"decoder.layers.{number}.mlp.linear_fc1.weight"].chunk(2)
                    halves = torch.cat([gate.chunk(tensor)[t], up.chunk(tensor)[t]])
                    own[f"decoder.layers.{i}.mlp.linear_fc1.weight"] = halves
                    out = whole[f"decoder.layers.{number}.mlp.linear_fc2.weight"].chunk(tensor, 1)[t]
                    own[f"decoder.layers.{i}.mlp.linear_fc2.weight"] = out.clone()
                if p == pipeline - 1 and v == virtual - 1:
                    own["decoder.final_layernorm.weight"] = whole["decoder.final_layernorm.weight"]
                    if pipeline > 1:
                        own["word_embeddings_for_head.weight"] = whole["embedding.word_embeddings.weight"].chunk(
                            tensor
                        )[t]
                made["model" if virtual == 1 else f"model{v}"] = own
            sizes = {"tensor_model_parallel_size": tensor, "pipeline_model_parallel_size": pipeline, "swiglu": True}
            made |= {"args": argparse.Namespace(**sizes), "iteration": step}
            folder = root / f"iter_{step:07d}" / (f"mp_rank_{t:02d}" + (f"_{p:03d}" if pipeline > 1 else ""))
            folder.mkdir(parents=True)
            torch.save(made, folder / "model_optim_rng.pt")
    return whole


@pytest.mark.parametrize(("tensor", "pipeline", "virtual"), [(2, 1, 1), (1, 2, 1), (2, 2, 1), (1, 2, 2), (2, 2, 2)])
def test_stages_are_put_one_after_the_other(tmp_path: Path, tensor: int, pipeline: int, virtual: int) -> None:
    whole = stages(tmp_path, 5, tensor, pipeline, virtual)
    parameters = load_run(tmp_path).checkpoints[0].parameters
    assert set(parameters) == set(whole)
    for name, value in whole.items():
        assert torch.equal(parameters[name].load(), value), name


def test_a_missing_stage_is_named(tmp_path: Path) -> None:
    stages(tmp_path, 5, 2, 2)
    (tmp_path / "iter_0000005" / "mp_rank_01_001" / "model_optim_rng.pt").unlink()
    with pytest.raises(NothingToAnalyse, match="mp_rank_01_001/model_optim_rng.pt"):
        load_run(tmp_path)


def test_experts_are_numbered_through(tmp_path: Path) -> None:
    for rank in (0, 1):
        folder = tmp_path / "iter_0000005" / f"mp_rank_00_{rank:03d}"
        folder.mkdir(parents=True)
        names = {f"decoder.layers.0.mlp.experts.local_experts.{i}.linear_fc1.weight": i + 2 * rank for i in (0, 1)}
        own = {n: torch.full((4, 3), float(v)) for n, v in names.items()} | {"norm.weight": torch.ones(3)}
        sizes = {"tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1, "expert_model_parallel_size": 2}
        torch.save({"args": argparse.Namespace(**sizes), "model": own}, folder / "model_optim_rng.pt")
    parameters = load_run(tmp_path).checkpoints[0].parameters
    assert len(parameters) == 5
    for i in range(4):
        name = f"decoder.layers.0.mlp.experts.local_experts.{i}.linear_fc1.weight"
        assert float(parameters[name].load()[0, 0]) == i


def test_a_distributed_optimizer_is_said_to_be_left_out(tmp_path: Path) -> None:
    write(tmp_path, 5, 1)
    torch.save({0: torch.ones(3)}, tmp_path / "iter_0000005" / "mp_rank_00" / "distrib_optim.pt")
    run = load_run(tmp_path)
    assert any("distrib_optim.pt" in f.message for f in run.findings)
    assert len(run.checkpoints) == 1
