"""DeepSpeed ZeRO folders, laid out as its stages lay them out: joined, in two precisions, incomplete, damaged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.formats.deepspeed import claims, open_folder

GROUPS = (("a.weight", "b.weight"), ("a.bias", "s"))


def masters(step: int) -> dict[str, torch.Tensor]:
    shapes = {"a.weight": (5, 7), "b.weight": (3, 2, 2), "a.bias": (5,), "s": (1,)}
    out = {}
    for number, (name, shape) in enumerate(shapes.items()):
        numel = torch.Size(shape).numel()
        out[name] = (torch.arange(numel, dtype=torch.float32).reshape(shape) + 100 * number) * step + 0.001
    return out


def flat_parts(
    values: Mapping[str, torch.Tensor], group: tuple[str, ...], stage: int, ranks: int
) -> list[torch.Tensor]:
    """The parts of one group's vector on every rank."""
    if stage == 3:
        shares: list[list[torch.Tensor]] = [[] for _ in range(ranks)]
        for name in group:
            flat = values[name].reshape(-1)
            share = -(-flat.numel() // ranks)
            padded = torch.cat([flat, torch.zeros(share * ranks - flat.numel())])
            for rank in range(ranks):
                shares[rank].append(padded[rank * share : (rank + 1) * share])
        return [torch.cat(s) for s in shares]
    flat = torch.cat([values[n].reshape(-1) for n in group])
    size = -(-flat.numel() // (2 * ranks)) * 2
    padded = torch.cat([flat, torch.full((size * ranks - flat.numel(),), 7.0)])
    return [padded[r * size : (r + 1) * size].clone() for r in range(ranks)]


def write(folder: Path, step: int, stage: int, ranks: int = 3, mapped: bool = False) -> None:
    folder.mkdir(parents=True)
    values = masters(step)
    weights = {n: v.to(torch.bfloat16) if stage < 3 else torch.empty(0) for n, v in values.items()}
    model = {
        "module": {**weights, "bn.running_mean": torch.full((4,), float(step))},
        "param_shapes": [{n: values[n].shape for n in group} for group in GROUPS],
        "global_steps": step,
    }
    prefix = "zero_pp_rank_0_" if stage == 3 else ""
    torch.save(model, folder / f"{prefix}mp_rank_00_model_states.pt")
    moments = {n: v * 3 for n, v in values.items()}
    for rank in range(ranks):
        flat = [flat_parts(values, g, stage, ranks)[rank] for g in GROUPS]
        state = {
            i: {"step": torch.tensor(float(step)), "exp_avg": flat_parts(moments, g, stage, ranks)[rank]}
            for i, g in enumerate(GROUPS)
        }
        common = {"lr": 0.1 / step, "betas": (0.9, 0.95), "eps": 1e-8}
        groups = [{**common, "weight_decay": 0.3, "params": [0]}, {**common, "weight_decay": 0.0, "params": [1]}]
        base = {"state": state, "param_groups": groups}
        if stage == 3:
            made: dict[str, Any] = {"fp32_flat_groups": flat, "optimizer_state_dict": base, "partition_count": ranks}
        else:
            made = {
                "single_partition_of_fp32_groups": flat,
                "base_optimizer_state": base,
                "partition_count": [ranks, ranks],
            }
            if mapped:
                made["param_slice_mappings"] = [slices(values, g, flat[i].numel(), rank) for i, g in enumerate(GROUPS)]
        name = f"{'bf16_' if stage < 3 else ''}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
        torch.save({"optimizer_state_dict": made}, folder / name)


def slices(values: Mapping[str, torch.Tensor], group: tuple[str, ...], size: int, rank: int) -> dict[str, Any]:
    """Each parameter's fragment in one rank's part."""
    out, at = {}, 0
    for name in group:
        low, high = max(at, rank * size), min(at + values[name].numel(), (rank + 1) * size)
        if low < high:
            out[name] = {"start": low - rank * size, "numel": high - low}
        at += values[name].numel()
    return out


@pytest.mark.parametrize(
    ("stage", "ranks", "mapped"), [(1, 3, False), (2, 2, True), (2, 1, False), (3, 3, False), (3, 11, False)]
)
def test_the_ranks_are_joined(tmp_path: Path, stage: int, ranks: int, mapped: bool) -> None:
    for step in (5, 10):
        write(tmp_path / f"global_step{step}", step, stage, ranks, mapped)
    (tmp_path / "latest").write_text("global_step10")
    live, master = load_run(tmp_path), load_run(tmp_path, weights="master")
    for run in (live, master):
        assert [(c.step, c.format, c.framework) for c in run.checkpoints] == [
            (5, "DeepSpeed", "deepspeed"),
            (10, "DeepSpeed", "deepspeed"),
        ]
        assert run.parameter_groups == {"0": GROUPS[0], "1": GROUPS[1]}
    for checkpoint, precise in zip(live.checkpoints, master.checkpoints, strict=True):
        for name, value in masters(checkpoint.step).items():
            assert torch.equal(precise.parameters[name].load(), value)
            shown = value if stage == 3 else value.to(torch.bfloat16)
            assert torch.equal(checkpoint.parameters[name].load(), shown)
            assert torch.equal(checkpoint.optimizer_state[name]["exp_avg"].load(), value * 3)
            assert float(checkpoint.optimizer_state[name]["step"].read()) == checkpoint.step
        assert float(checkpoint.buffers["bn.running_mean"].load()[0]) == checkpoint.step
        found = {(s.parameter_group, s.name): s.value for s in checkpoint.settings if s.kind == "in force"}
        assert found["0", "learning_rate"] == found["1", "learning_rate"] == 0.1 / checkpoint.step
        assert (found["0", "weight_decay"], found["1", "weight_decay"]) == (0.3, 0.0)


def test_a_tensor_says_where_it_lies_only_if_it_lies_in_one_piece(tmp_path: Path) -> None:
    write(tmp_path / "global_step5", 5, 2, 3)
    parameters = load_run(tmp_path, weights="master").checkpoints[0].parameters
    assert parameters["a.weight"].extent is None  # 47 elements in parts of 16
    extent = parameters["s"].extent
    assert extent is not None
    raw = Path(extent.path).read_bytes()[extent.offset : extent.offset + extent.nbytes]
    assert raw == masters(5)["s"].numpy().tobytes()


@pytest.mark.parametrize("stage", [1, 3])
def test_a_missing_rank_is_said_and_the_rest_goes_on(tmp_path: Path, stage: int) -> None:
    for step in (5, 10):
        write(tmp_path / f"global_step{step}", step, stage)
    next((tmp_path / "global_step5").glob("*rank_1_mp*")).unlink()
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [10]
    assert any("rank 1 are missing" in f.message for f in run.findings)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("param_shapes", None, "param_shapes"),
        ("param_shapes", [{"a.weight": (5, -7)}], "param_shapes"),
        ("param_shapes", [{"a.weight": (1 << 30, 1 << 30)}], "missing"),
        ("param_shapes", [{"a.weight": (47,), "b.weight": (9,)}], "missing"),
    ],
)
def test_shapes_that_lie_are_damaged(tmp_path: Path, key: str, value: Any, words: str) -> None:
    folder = tmp_path / "global_step5"
    write(folder, 5, 1)
    path = folder / "mp_rank_00_model_states.pt"
    torch.save({**torch.load(path, weights_only=False), key: value}, path)
    with pytest.raises(DamagedFile, match=words):
        open_folder(str(folder), claims(str(folder), sorted(p.name for p in folder.iterdir()), []), None)
