"""DCP folders as trainers lay them out: several in one checkpoint, files beside, Megatron's states, packed parts."""

import argparse
import io
import json
import pickle
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from smd_analyze.errors import DamagedFile, MissingLibrary, NothingToAnalyse, UnsafeFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.torch_distributed import open_folder
from smd_analyze.loading.pickles import zstandard_parts


def write(
    folder: Path,
    flat: Mapping[str, Any],
    grids: Mapping[str, tuple[int, ...]] | None = None,
    planner: bool = True,
    shuffled: bool = False,
    pack: Any = None,
) -> None:
    """A DCP folder; tensors in `grids` are cut into so many parts along each axis, over two files."""
    folder.mkdir(parents=True)
    files = {f"__{rank}_0.distcp": io.BytesIO() for rank in (0, 1)}
    entries: dict[str, Any] = {}
    where: dict[MetadataIndex, _StorageInfo] = {}

    def store(rank: int, index: MetadataIndex, value: Any) -> None:
        made = io.BytesIO()
        torch.save(value, made)
        raw = pack(made.getvalue()) if pack else made.getvalue()
        file = f"__{rank}_0.distcp"
        said = ["stream.zstd/1"] if pack else None
        where[index] = _StorageInfo(file, files[file].tell(), len(raw), transform_descriptors=said)
        files[file].write(raw)

    for name, value in flat.items():
        if not isinstance(value, torch.Tensor):
            entries[name] = BytesStorageMetadata()
            store(0, MetadataIndex(name), value)
            continue
        boxes = [((0,) * value.ndim, value)]
        for axis, count in enumerate((grids or {}).get(name, ())):
            cut = []
            for begin, part in boxes:
                at = begin[axis]
                for piece in part.tensor_split(count, axis):
                    cut.append(((*begin[:axis], at, *begin[axis + 1 :]), piece))
                    at += piece.shape[axis]
            boxes = cut
        chunks = []
        for number, (begin, piece) in enumerate(boxes):
            chunks.append(ChunkStorageMetadata(torch.Size(begin), piece.shape))
            store(number % 2, MetadataIndex(name, torch.Size(begin), number), piece.clone())
        entries[name] = TensorStorageMetadata(TensorProperties(value.dtype), value.shape, chunks)
    paths = {k: tuple(int(w) if w.isdigit() else w for w in k.split("|")) for k in flat} if planner else None
    if shuffled:
        names = list(entries)
        random.Random(3).shuffle(names)
        entries = {n: entries[n] for n in names}
    for name, content in files.items():
        (folder / name).write_bytes(content.getvalue())
    (folder / ".metadata").write_bytes(pickle.dumps(Metadata(entries, paths, where)))


def weights(step: int) -> dict[str, torch.Tensor]:
    return {
        "b.weight": torch.arange(63, dtype=torch.float32).reshape(9, 7) * step + 1,
        "a.weight": torch.arange(81, dtype=torch.float32).reshape(9, 9) * step + 2,
        "a.bias": torch.arange(9, dtype=torch.float32) * step,
        "z.bias": torch.arange(9, dtype=torch.float32) * step - 5,
    }


def check(parameters: Mapping[str, Any], expected: Mapping[str, torch.Tensor]) -> None:
    assert set(parameters) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(parameters[name].load(), tensor), name


def optimizer_by_name(step: int) -> dict[str, Any]:
    flat: dict[str, Any] = {f"optimizer|state|{n}|exp_avg": v * 2 for n, v in weights(step).items()}
    groups = [{"lr": 0.5, "weight_decay": 0.25, "betas": (0.9, 0.95), "params": list(weights(step))}]
    return {**flat, "optimizer|param_groups": groups}


@pytest.mark.parametrize("grid", [(2, 3), (4, 4), (1, 5), (3, 1)])
def test_parts_of_a_grid(tmp_path: Path, grid: tuple[int, int]) -> None:
    """A 2-D mesh cuts unevenly; some parts are empty, and so is a whole tensor."""
    flat = {f"model|{n}": v for n, v in weights(3).items()} | {"model|none": torch.zeros(0, 3)}
    write(tmp_path / "3", flat, {"model|b.weight": grid, "model|a.bias": (11,)})
    (checkpoint,) = load_run(tmp_path).checkpoints
    check(checkpoint.parameters, {**weights(3), "none": torch.zeros(0, 3)})


def test_numbers_of_the_optimizer_follow_the_state_dict(tmp_path: Path) -> None:
    """The index lists what each rank wrote; the paths beside it keep the order of model.parameters()."""
    flat: dict[str, Any] = {f"model|{n}": v for n, v in weights(3).items()}
    for number, tensor in enumerate(weights(3).values()):
        flat |= {f"optimizer|state|{number}|exp_avg": tensor * 2, f"optimizer|state|{number}|step": torch.tensor(3.0)}
    flat["optimizer|param_groups"] = [{"lr": 0.5, "weight_decay": 0.1, "betas": (0.9, 0.95), "params": [0, 1, 2, 3]}]
    write(tmp_path / "3", flat, shuffled=True)
    (checkpoint,) = load_run(tmp_path).checkpoints
    assert list(checkpoint.parameters) == list(weights(3))
    for name, tensor in weights(3).items():
        assert torch.equal(checkpoint.optimizer_state[name]["exp_avg"].load(), tensor * 2), name


@pytest.mark.parametrize("wrapped", [True, False])
def test_folders_of_accelerate_and_transformers(tmp_path: Path, wrapped: bool) -> None:
    for step in (5, 10):
        folder = tmp_path / f"checkpoint-{step}"
        write(folder / "pytorch_model_fsdp_0", {f"model|{n}": v for n, v in weights(step).items()})
        flat = optimizer_by_name(step)
        flat = flat if wrapped else {n.removeprefix("optimizer|"): v for n, v in flat.items()}
        write(folder / "optimizer_0", flat)
        torch.save({"last_epoch": step, "base_lrs": [0.5]}, folder / "scheduler.bin")
        history = [{"step": step, "learning_rate": 0.25}]
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": history}))
        torch.save(argparse.Namespace(learning_rate=0.5, weight_decay=0.25), folder / "training_args.bin")
    run = load_run(tmp_path)
    assert run.ordered_by == "global_step in trainer_state.json"
    assert [c.step for c in run.checkpoints] == [5, 10]
    for checkpoint in run.checkpoints:
        check(checkpoint.parameters, weights(checkpoint.step))
        moment = checkpoint.optimizer_state["a.weight"]["exp_avg"].load()
        assert torch.equal(moment, weights(checkpoint.step)["a.weight"] * 2)
        found = {(s.name, s.kind): s.value for s in checkpoint.settings}
        assert found["weight_decay", "in force"] == 0.25
        assert found["learning_rate", "configured"] == 0.5
    (tmp_path / "checkpoint-10" / "optimizer_0" / ".metadata").unlink()
    again = load_run(tmp_path)
    assert len(again.checkpoints) == 2
    assert any("not finished" in f.message for f in again.findings)


@pytest.mark.parametrize("steps", ["step-{}", "checkpoints/{}", "{}"])
def test_a_last_one_beside_the_sequence_hides_it_not(tmp_path: Path, steps: str) -> None:
    for step in (5, 10):
        write(tmp_path / steps.format(step), {f"model|{n}": v for n, v in weights(step).items()})
    write(tmp_path / "weights", {f"model|{n}": v for n, v in weights(10).items()})
    assert [c.step for c in load_run(tmp_path).checkpoints] == [5, 10]


def test_olmo_core_and_lightning(tmp_path: Path) -> None:
    for step in (5, 10):
        flat = {f"model|{n}": v for n, v in weights(step).items()}
        write(tmp_path / "olmo" / f"step{step}" / "model_and_optim", flat | optimizer_by_name(step))
        (tmp_path / "olmo" / f"step{step}" / "train").mkdir()
        torch.save({"global_step": step * 7}, tmp_path / "olmo" / f"step{step}" / "train" / "rank0.pt")
        folder = tmp_path / "lightning" / f"epoch=0-step={step}.ckpt"
        write(folder, {f"state_dict|{n}": v for n, v in weights(step).items()} | {"optimizer_0": {"param_groups": []}})
        torch.save({"global_step": step, "epoch": 0, "pytorch-lightning_version": "2.6"}, folder / "meta.pt")
    for name, factor in (("olmo", 7), ("lightning", 1)):
        run = load_run(tmp_path / name)
        assert [c.step for c in run.checkpoints] == [5 * factor, 10 * factor]
        check(run.checkpoints[1].parameters, weights(10))


def megatron(folder: Path, flat: Mapping[str, Any], grids: Mapping[str, tuple[int, ...]]) -> Any:
    write(folder, flat, grids, planner=False)
    groups = [{"lr": 0.5, "weight_decay": d, "betas": (0.9, 0.95), "params": [0]} for d in (0.1, 0.0)]
    args = argparse.Namespace(num_layers=2, optimizer="adam")
    optimizer = {0: {"optimizer": {"param_groups": groups[:1]}}, 1: {"optimizer": {"param_groups": groups[1:]}}}
    torch.save({"iteration": 10, "args": args, "optimizer": optimizer}, folder / "common.pt")
    return load_run(folder.parent)


def test_megatrons_layers_and_experts_and_flat_states(tmp_path: Path) -> None:
    fc = torch.randn(2, 3, 4, 5)  # layers, experts, out, in
    qkv, norm = torch.randn(2, 6, 4), torch.randn(2, 4)
    flat = {
        "decoder.layers.mlp.experts.experts.linear_fc1.weight": fc,
        "decoder.layers.qkv.weight": qkv,
        "decoder.layers.norm.weight": norm,
        "embedding.weight": torch.ones(4, 4),
    }
    cells = torch.stack([part.reshape(2, -1) for part in qkv.chunk(2, 1)], 1)  # per layer and half of the rows
    flat["optimizer.state.exp_avg.decoder.layers.qkv.weight"] = cells.reshape(2, 2, 1, 12) * 2
    flat["optimizer.state.exp_avg.embedding.weight"] = torch.full((16,), 2.0)
    bucket = (
        "optimizer.distributed.dp_group_idx_0.gbuf_idx_0.dtype_(torch.bfloat16, torch.float32).bucket_idx_0.exp_avg"
    )
    flat[bucket] = torch.ones(9)
    grids: dict[str, tuple[int, ...]] = dict.fromkeys(flat, (2,)) | {"embedding.weight": (1,)}
    grids["decoder.layers.mlp.experts.experts.linear_fc1.weight"] = (2, 3, 2)
    grids["optimizer.state.exp_avg.decoder.layers.qkv.weight"] = (2, 2, 1, 3)
    run = megatron(tmp_path / "iter_0000010", flat, grids)
    (checkpoint,) = run.checkpoints
    expected = {"embedding.weight": torch.ones(4, 4)}
    for i in (0, 1):
        expected |= {f"decoder.layers.{i}.qkv.weight": qkv[i], f"decoder.layers.{i}.norm.weight": norm[i]}
        for e in range(3):
            expected[f"decoder.layers.{i}.mlp.experts.experts.{e}.linear_fc1.weight"] = fc[i, e]
    check(checkpoint.parameters, expected)
    for i in (0, 1):
        assert torch.equal(checkpoint.optimizer_state[f"decoder.layers.{i}.qkv.weight"]["exp_avg"].load(), qkv[i] * 2)
    assert torch.equal(checkpoint.optimizer_state["embedding.weight"]["exp_avg"].load(), torch.full((4, 4), 2.0))
    assert any("buckets" in f.message for f in run.findings)
    assert run.parameter_groups["1"] == ("decoder.layers.0.norm.weight", "decoder.layers.1.norm.weight")


@pytest.mark.parametrize("grid", [(1,), (1, 2), (2, 3)])
def test_layers_that_were_written_together(tmp_path: Path, grid: tuple[int, ...]) -> None:
    """A converted checkpoint holds the stack in one piece; how many layers there are stands in the arguments."""
    qkv, norm = torch.randn(2, 6, 4), torch.randn(2, 4)
    flat = {"decoder.layers.qkv.weight": qkv, "decoder.layers.norm.weight": norm, "embedding.weight": torch.ones(2, 4)}
    run = megatron(tmp_path / "iter_0000010", flat, {"decoder.layers.qkv.weight": grid})
    expected = {"embedding.weight": torch.ones(2, 4)}
    for i in (0, 1):
        expected |= {f"decoder.layers.{i}.qkv.weight": qkv[i], f"decoder.layers.{i}.norm.weight": norm[i]}
    check(run.checkpoints[0].parameters, expected)
    assert [f.message for f in run.findings if f.code == "stacked-layers"]


def test_an_optimizer_that_names_stacks_keeps_them(tmp_path: Path) -> None:
    """torchtitan's experts: cut, they would no longer be what the optimizer calls them."""
    experts = torch.randn(2, 3, 4)
    flat = {"model|layers.0.moe.experts.w1": experts, "optimizer|state|layers.0.moe.experts.w1|exp_avg": experts * 2}
    flat["optimizer|param_groups"] = [{"lr": 0.5, "weight_decay": 0.1, "params": ["layers.0.moe.experts.w1"]}]
    write(tmp_path / "3", flat, {"model|layers.0.moe.experts.w1": (2,)})
    run = load_run(tmp_path)
    check(run.checkpoints[0].parameters, {"layers.0.moe.experts.w1": experts})
    assert run.parameter_groups == {"0": ("layers.0.moe.experts.w1",)}


def test_gate_and_up_projection_saved_apart(tmp_path: Path) -> None:
    gate, up = torch.randn(3, 4), torch.randn(3, 4)
    flat = {"decoder.layers.0.mlp.linear_fc1.weight_w": gate, "decoder.layers.0.mlp.linear_fc1.weight_v": up}
    (checkpoint,) = megatron(tmp_path / "iter_0000010", flat, {}).checkpoints
    check(checkpoint.parameters, {"decoder.layers.0.mlp.linear_fc1.weight": torch.cat([gate, up])})


def fake_library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """zstandard's interface around zlib: what is tested is what is done with it."""
    import zlib

    class Reader(io.BytesIO):
        def __init__(self, packed: Any) -> None:
            super().__init__(zlib.decompress(packed.read()))

    module = ModuleType("zstandard")
    module.ZstdDecompressor = type("D", (), {"stream_reader": staticmethod(Reader)})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zstandard", module)
    monkeypatch.setattr(zstandard_parts, "find_spec", lambda name: True if name == "zstandard" else None)
    return zlib.compress


def test_compressed_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = fake_library(monkeypatch)
    write(
        tmp_path / "3",
        {f"model|{n}": v for n, v in weights(3).items()} | {"step": 3},
        {"model|a.weight": (2, 2)},
        pack=pack,
    )
    (checkpoint,) = load_run(tmp_path).checkpoints
    assert checkpoint.step == 3
    check(checkpoint.parameters, weights(3))


def test_a_compressed_part_that_unfolds_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = fake_library(monkeypatch)
    path = tmp_path / "bomb"
    path.write_bytes(pack(bytes(1 << 22)))
    with open_source(str(path)) as source, pytest.raises(UnsafeFile, match="unfolds"):
        zstandard_parts.unpacked(source, 1 << 20)
    path.write_bytes(b"no such thing")
    with open_source(str(path)) as source, pytest.raises(DamagedFile, match="not sound"):
        zstandard_parts.unpacked(source, 1 << 20)


def test_what_is_missing_to_unpack_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "3", {"model|a.weight": torch.ones(2, 2), "step": 3}, pack=lambda raw: raw)
    monkeypatch.setattr(zstandard_parts, "find_spec", lambda name: None)
    with pytest.raises(MissingLibrary, match="pip install zstandard"):
        open_folder(str(tmp_path / "3"), [".metadata"], None)


def test_a_value_that_unfolds_without_end_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smd_analyze.loading.parallel.distributed_table.MOST_VALUES", 10_000)
    node: Any = [1.0]
    for _ in range(6):
        node = [node] * 200
    write(tmp_path / "3", {"model|a.weight": torch.ones(2, 2), "step": 3, "junk": node})
    (checkpoint,) = load_run(tmp_path).checkpoints
    assert checkpoint.step == 3


def test_flat_vectors_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "3", {"layers.0._flat_param": torch.ones(9)}, planner=False)
    with pytest.raises(NothingToAnalyse, match="SHARDED_STATE_DICT"):
        load_run(tmp_path)


def test_megatrons_older_format_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "iter_0000005"
    (folder / "embedding.weight").mkdir(parents=True)
    (folder / "embedding.weight" / ".zarray").write_text("{}")
    torch.save({"iteration": 5}, folder / "common.pt")
    (folder / "metadata.json").write_text('{"sharded_backend": "zarr"}')
    with pytest.raises(NothingToAnalyse, match="torch_dist"):
        load_run(tmp_path)
