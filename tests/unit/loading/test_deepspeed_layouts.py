"""DeepSpeed beyond plain ZeRO: pipelines, experts, tensor-parallel ranks, universal folders, trainers' folders."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from smd_analyze.errors import DamagedFile, NothingToAnalyse
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.formats import deepspeed

QKV, DENSE = "attention.query_key_value.weight", "attention.dense.weight"


def zero(
    folder: Path, rank: int, model: int, values: list[dict[str, torch.Tensor]], ranks: int = 1, **more: Any
) -> None:
    """One rank's part of the optimizer (stage 1): each group's vector, cut evenly."""
    flat = [torch.cat([v.reshape(-1) for v in group.values()]).chunk(ranks)[rank].clone() for group in values]
    state = {i: {"step": torch.tensor(5.0), "exp_avg": f * 2} for i, f in enumerate(flat)}
    groups = [{"lr": 0.5, "weight_decay": 0.1 * (i + 1), "betas": (0.9, 0.95), "params": [i]} for i in range(len(flat))]
    made = {
        "single_partition_of_fp32_groups": flat,
        "base_optimizer_state": {"state": state, "param_groups": groups},
        "partition_count": [ranks] * len(flat),
        **more,
    }
    name = f"zero_pp_rank_{rank}_mp_rank_{model:02d}_optim_states.pt"
    torch.save({"optimizer_state_dict": made}, folder / name)


def shapes(values: list[dict[str, torch.Tensor]]) -> list[Any]:
    return [OrderedDict((n, v.shape) for n, v in group.items()) for group in values]


@pytest.mark.parametrize("cut", [1, 2])
def test_a_pipeline_of_gpt_neox(tmp_path: Path, cut: int) -> None:
    """Two stages, `cut` tensor-parallel ranks; the embedding is tied over the stages."""
    folder = tmp_path / "global_step5"
    folder.mkdir()
    whole = {"tied_modules.embed.word_embeddings.weight": torch.randn(8, 4)}
    for layer in (2, 3):
        whole |= {f"{layer}.{QKV}": torch.randn(12, 4), f"{layer}.{DENSE}": torch.randn(4, 4)}
        whole |= {f"{layer}.input_layernorm.weight": torch.randn(4)}

    def part(name: str, rank: int) -> torch.Tensor:
        axis = 0 if QKV in name or "embed" in name else 1 if DENSE in name else None
        return whole[name] if axis is None else whole[name].chunk(cut, axis)[rank].contiguous()

    for rank in range(cut):
        name = "layer_00-model_states.pt" if cut == 1 else f"layer_00-model_{rank:02d}-model_states.pt"
        tied = "tied_modules.embed.word_embeddings.weight"
        torch.save({"word_embeddings.weight": part(tied, rank)}, folder / name)
        for stage, layer in enumerate((2, 3)):
            own = {n: part(n, rank) for n in whole if n.startswith(f"{layer}.")}
            name = name.replace(f"layer_{(0, 2)[stage]:02d}", f"layer_{layer:02d}")
            torch.save({n.partition(".")[2]: v for n, v in own.items()}, folder / name)
            number = stage * cut + rank
            values = [{tied: part(tied, rank)} | {n: v for n, v in own.items() if v.ndim > 1}]
            values.append({n: v for n, v in own.items() if v.ndim == 1})
            said = {"module": None, "param_shapes": shapes(values), "global_steps": 5, "mp_world_size": 2 * cut}
            torch.save(said, folder / f"mp_rank_{number:02d}_model_states.pt")
            zero(folder, 0, number, values)
    run = load_run(tmp_path)
    (checkpoint,) = run.checkpoints
    assert checkpoint.step == 5
    assert set(checkpoint.parameters) == set(whole)
    for name, value in whole.items():
        assert torch.equal(checkpoint.parameters[name].load(), value), name
        assert torch.equal(checkpoint.variants["master"][name].load(), value), name
        assert torch.equal(checkpoint.optimizer_state[name]["exp_avg"].load(), value * 2), name
    assert {g: len(n) for g, n in run.parameter_groups.items()} == {"0": 5, "1": 2}


def test_experts_are_numbered_through(tmp_path: Path) -> None:
    """Two ranks with two experts each: files have the model's numbers, the optimizer each rank's own."""
    folder = tmp_path / "global_step5"
    folder.mkdir()
    name = "moe.deepspeed_moe.experts.deepspeed_experts.{}.weight"
    experts = [torch.randn(3, 2) for _ in range(4)]
    dense = {"fc.weight": torch.randn(4, 2)}
    local = OrderedDict((name.format(i), torch.Size((3, 2))) for i in (0, 1))
    model = {"module": dense, "param_shapes": [*shapes([dense]), local], "global_steps": 5}
    torch.save(model, folder / "mp_rank_00_model_states.pt")
    for i, expert in enumerate(experts):
        torch.save({name.format(i): expert}, folder / f"layer_0_expert_{i}_mp_rank_00_model_states.pt")
    for rank in (0, 1):
        own = {name.format(i): experts[2 * rank + i] for i in (0, 1)}
        flat = [dense["fc.weight"].reshape(-1).chunk(2)[rank].clone(), torch.cat([v.reshape(-1) for v in own.values()])]
        groups = [{"lr": 0.5, "name": "shared", "params": [i]} for i in (0, 1)]
        made = {
            "single_partition_of_fp32_groups": flat,
            "base_optimizer_state": {
                "state": {i: {"exp_avg": f * 2} for i, f in enumerate(flat)},
                "param_groups": groups,
            },
            "partition_count": [2, 1],
        }
        file = folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        torch.save({"optimizer_state_dict": made}, file)
    run = load_run(tmp_path)
    (checkpoint,) = run.checkpoints
    for i, expert in enumerate(experts):
        assert torch.equal(checkpoint.parameters[name.format(i)].load(), expert)
        assert torch.equal(checkpoint.variants["master"][name.format(i)].load(), expert)
        assert torch.equal(checkpoint.optimizer_state[name.format(i)]["exp_avg"].load(), expert * 2)
    assert torch.equal(checkpoint.variants["master"]["fc.weight"].load(), dense["fc.weight"])
    assert [len(names) for names in run.parameter_groups.values()] == [1, 4]


def plain(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """A small ZeRO-1 folder of two ranks."""
    folder.mkdir(parents=True)
    values = {"a.weight": torch.randn(4, 6), "a.bias": torch.randn(4)}
    model = {"module": values, "param_shapes": shapes([values]), "global_steps": step}
    torch.save({**model, "pytorch-lightning_version": "2.6"}, folder / "mp_rank_00_model_states.pt")
    for rank in (0, 1):
        zero(folder, rank, 0, [values], 2)
    return values


@pytest.mark.parametrize(
    "inner", ["checkpoint-{0}/global_step{0}", "epoch=0-step={0}.ckpt/checkpoint", "x_{0}/pytorch_model"]
)
def test_a_trainers_folder_around_it_is_one_checkpoint(tmp_path: Path, inner: str) -> None:
    for step in (5, 10):
        folder = tmp_path / inner.format(step)
        values = plain(folder, step)
        (folder.parent / "latest").write_text("global_step5")  # stale in one of them
        (folder.parent / "zero_to_fp32.py").write_text("import torch")
        torch.save({"last_epoch": step, "base_lrs": [0.5]}, folder.parent / "scheduler.pt")
        history = [{"step": step, "learning_rate": 0.25}]
        state = {"global_step": step, "log_history": history}
        (folder.parent / "trainer_state.json").write_text(json.dumps(state))
        torch.save({"unused": torch.ones(3)}, folder.parent / "pytorch_model.bin")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 10]
    assert run.ordered_by == "global_step in trainer_state.json"
    last = run.checkpoints[-1]
    assert last.framework == "deepspeed"
    assert torch.equal(last.parameters["a.weight"].load(), values["a.weight"])
    assert {s.name for s in last.settings} >= {"learning_rate", "weight_decay", "schedule.last_epoch"}


def test_a_universal_folder(tmp_path: Path) -> None:
    values = {"a.weight": torch.randn(4, 6), "a.bias": torch.randn(4)}
    folder = tmp_path / "global_step5_universal"
    (folder / "zero").mkdir(parents=True)
    live = {n: v.to(torch.bfloat16) for n, v in values.items()}
    groups = shapes([{"a.weight": values["a.weight"]}, {"a.bias": values["a.bias"]}])
    torch.save({"module": live, "param_shapes": groups, "global_steps": 5}, folder / "mp_rank_00_model_states.pt")
    for name, value in values.items():
        (folder / "zero" / name).mkdir()
        for slot, tensor in (("fp32", value), ("exp_avg", value * 2), ("exp_avg_sq", value * 3)):
            torch.save({"param": tensor, "cat_dim": 0}, folder / "zero" / name / f"{slot}.pt")
        torch.save(torch.tensor(5.0), folder / "zero" / name / "step.pt")
    told = [{"lr": 0.5, "weight_decay": d, "betas": (0.9, 0.95), "params": [i]} for i, d in enumerate((0.1, 0.0))]
    torch.save({"param_groups": told}, folder / "zero" / "optimizer_state.pt")
    run = load_run(tmp_path)
    (checkpoint,) = run.checkpoints
    assert (checkpoint.step, checkpoint.format) == (5, "DeepSpeed universal")
    assert run.parameter_groups == {"0": ("a.weight",), "1": ("a.bias",)}
    for name, value in values.items():
        assert torch.equal(checkpoint.parameters[name].load(), live[name])
        assert torch.equal(checkpoint.variants["master"][name].load(), value)
        assert torch.equal(checkpoint.optimizer_state[name]["exp_avg_sq"].load(), value * 3)


def test_frozen_parameters_of_stage_3(tmp_path: Path) -> None:
    """They lie in even shares in the ranks' model states, and in no optimizer."""
    folder = tmp_path / "global_step5"
    folder.mkdir()
    fixed, moved = torch.randn(5, 3), torch.randn(4)
    for rank in (0, 1):
        module = {"fixed.weight": torch.empty(0), "a.bias": torch.empty(0)}
        share = torch.cat([fixed.reshape(-1), torch.zeros(1)]).chunk(2)[rank].clone()
        said = {"module": module, "param_shapes": shapes([{"a.bias": moved}]), "global_steps": 5}
        said |= {
            "frozen_param_shapes": {"fixed.weight": fixed.shape},
            "frozen_param_fragments": {"fixed.weight": share},
        }
        torch.save(said, folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        flat = moved.chunk(2)[rank].clone()
        inner = {"state": {0: {"exp_avg": flat}}, "param_groups": [{"lr": 0.5, "params": [0]}]}
        made = {"fp32_flat_groups": [flat], "optimizer_state_dict": inner, "partition_count": 2}
        torch.save({"optimizer_state_dict": made}, folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    (checkpoint,) = load_run(tmp_path).checkpoints
    assert torch.equal(checkpoint.parameters["a.bias"].load(), moved)
    assert torch.equal(checkpoint.buffers["fixed.weight"].load(), fixed)
    for path in folder.glob("*optim_states.pt"):
        path.unlink()
    with pytest.raises(NothingToAnalyse, match="which hold the weights"):
        load_run(tmp_path)


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "global_step5"
    plain(folder, 5)
    (folder / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()

    def read() -> None:
        deepspeed.open_folder(str(folder), deepspeed.claims(str(folder), [p.name for p in folder.iterdir()], []), None)

    with pytest.raises(DamagedFile, match="zero_pp_rank_1_mp_rank_00_optim_states.pt"):
        read()
    (folder / "mp_rank_00_model_states.pt").rename(folder / "mp_rank_01_model_states.pt")
    with pytest.raises(DamagedFile, match="mp_rank_00_model_states.pt is missing"):
        read()
