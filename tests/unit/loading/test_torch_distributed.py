"""torch.distributed checkpoints: written by torch itself, in chunks, flattened, damaged and hostile."""

import argparse
import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
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
from torch.distributed.checkpoint.state_dict_saver import save

from smd_analyze.errors import DamagedFile, NothingToAnalyse, SmdError, UnsafeFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.formats.torch_distributed import open_folder
from smd_analyze.records.run import Checkpoint


def weights(scale: float = 1.0) -> dict[str, torch.Tensor]:
    return {
        "a.weight": torch.arange(35, dtype=torch.float32).reshape(5, 7) * scale + 1,
        "a.bias": torch.arange(5, dtype=torch.float32) * scale - 2,
        "n.weight": (torch.arange(6, dtype=torch.float32) * scale + 3).to(torch.bfloat16),
    }


def write(
    folder: Path, flat: Mapping[str, Any], cuts: Mapping[str, int] | None = None, planner: bool = True, ranks: int = 2
) -> Metadata:
    """A DCP folder as several ranks would write it: tensors in `cuts` are cut along that axis, as evenly as can be."""
    folder.mkdir(parents=True)
    files = {f"__{rank}_0.distcp": io.BytesIO() for rank in range(ranks)}
    entries: dict[str, Any] = {}
    where: dict[MetadataIndex, _StorageInfo] = {}

    def store(file: str, index: MetadataIndex, value: Any) -> None:
        made = io.BytesIO()
        torch.save(value, made)
        where[index] = _StorageInfo(file, files[file].tell(), made.tell())
        files[file].write(made.getvalue())

    for number, (name, value) in enumerate(flat.items()):
        if not isinstance(value, torch.Tensor):
            entries[name] = BytesStorageMetadata()
            store("__0_0.distcp", MetadataIndex(name), value)
            continue
        axis = (cuts or {}).get(name)
        parts = [value] if axis is None else list(value.tensor_split(ranks, axis))
        chunks, begin = [], [0] * value.ndim
        for rank, part in enumerate(parts):
            owner = number % ranks if axis is None else rank
            chunks.append(ChunkStorageMetadata(torch.Size(begin), part.shape))
            store(f"__{owner}_0.distcp", MetadataIndex(name, torch.Size(begin), rank), part.clone())
            if axis is not None:
                begin[axis] += part.shape[axis]
        entries[name] = TensorStorageMetadata(TensorProperties(value.dtype), value.shape, chunks)
    table = Metadata(entries, {k: tuple(k.split("|")) for k in flat} if planner else None, where)
    for name, content in files.items():
        (folder / name).write_bytes(content.getvalue())
    write_table(folder, table)
    return table


def write_table(folder: Path, table: Any) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(table))


def settings(checkpoint: Checkpoint, kind: str = "in force") -> dict[tuple[str | None, str], float | None]:
    return {(s.parameter_group, s.name): s.value for s in checkpoint.settings if s.kind == kind}


def check(checkpoint: Checkpoint, expected: Mapping[str, torch.Tensor]) -> None:
    assert list(checkpoint.parameters) == list(expected)
    for name, tensor in expected.items():
        read = checkpoint.parameters[name]
        assert torch.equal(read.load(), tensor)
        assert (read.shape, read.dtype) == (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        assert read.extent is None


def test_what_torch_itself_writes(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6))
        optimizer = torch.optim.AdamW(net.parameters(), lr=1 / step, weight_decay=0.1)
        net(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save(state, checkpoint_id=tmp_path / f"step-{step}", no_dist=True)
        last, trained = {k: v.clone() for k, v in net.state_dict().items()}, optimizer
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 10, 100]
    check(run.checkpoints[-1], last)
    assert run.parameter_groups == {"0": tuple(last)}
    found = settings(run.checkpoints[1])
    assert (found["0", "learning_rate"], found["0", "weight_decay"], found["0", "beta2"]) == (0.1, 0.1, 0.999)
    for name, parameter in net.named_parameters():
        read = run.checkpoints[-1].optimizer_state[name]
        np.testing.assert_array_equal(read["exp_avg"].read(), trained.state[parameter]["exp_avg"].numpy())


@pytest.mark.parametrize("axis", [0, 1])
def test_chunks_of_several_ranks_are_put_together(tmp_path: Path, axis: int) -> None:
    for step in (2, 10):
        flat = {f"model|{k}": v for k, v in weights(step).items()} | {"step": step}
        write(tmp_path / f"step_{step}", flat, {"model|a.weight": axis, "model|n.weight": 0}, ranks=3)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [2, 10]
    for checkpoint in run.checkpoints:
        check(checkpoint, weights(checkpoint.step))
        assert checkpoint.nbytes == sum(size for size, _ in checkpoint.identity.values())


def test_flattened_optimizer_state_of_torchtitan(tmp_path: Path) -> None:
    for step in (1, 2):
        flat: dict[str, Any] = dict(weights(step))
        for name, tensor in weights(step).items():
            flat[f"optimizer|state.{name}.exp_avg"] = tensor * 2
            flat[f"optimizer|param_groups.{name}.lr"] = 0.1 / step
            flat[f"optimizer|param_groups.{name}.weight_decay"] = 0.3 if tensor.ndim > 1 else 0.0
            flat[f"optimizer|param_groups.{name}.betas"] = (0.9, 0.95)
            flat[f"optimizer|param_groups.{name}.eps"] = 1e-8
        flat["train_state|step"] = torch.tensor(step * 500)
        write(tmp_path / f"step-{step}", flat, {"a.weight": 0, "optimizer|state.a.weight.exp_avg": 0})
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [500, 1000]
    assert run.parameter_groups == {"0": ("a.weight",), "1": ("a.bias", "n.weight")}
    check(run.checkpoints[1], weights(2))
    found = settings(run.checkpoints[1])
    assert (found["0", "learning_rate"], found["0", "weight_decay"], found["1", "weight_decay"]) == (0.05, 0.3, 0.0)
    moment = run.checkpoints[1].optimizer_state["a.weight"]["exp_avg"]
    assert torch.equal(moment.load(), weights(2)["a.weight"] * 2)


def test_an_application_around_model_and_optimizer_is_taken_off(tmp_path: Path) -> None:
    flat: dict[str, Any] = {f"app|model|{k}": v for k, v in weights().items()}
    flat |= {"app|optim|param_groups.a.weight.lr": 0.5, "app|optim|param_groups.a.weight.weight_decay": 0.25}
    write(tmp_path / "10", flat)
    checkpoint = load_run(tmp_path).checkpoints[0]
    assert list(checkpoint.parameters) == ["a.weight"]  # the one that the optimizer trains
    assert settings(checkpoint)["0", "weight_decay"] == 0.25


def test_megatron_core(tmp_path: Path) -> None:
    """No nesting is saved; settings lie in common.pt, float32 masters among the optimizer's state."""
    for step in (5, 10):
        flat: dict[str, Any] = dict(weights(step)) | {"rng_state/shard_0_1": [object]}
        for name, tensor in weights(step).items():
            flat[f"optimizer.state.fp32_param.{name}"] = tensor.float() + 0.125
            flat[f"optimizer.state.exp_avg.{name}"] = tensor.float() * 2
            flat[f"optimizer.state.exp_avg_sq.{name}"] = tensor.float() * 5
        folder = tmp_path / f"iter_{step:07d}"
        write(folder, flat, {"a.weight": 1}, planner=False)
        groups = [{"lr": 0.1, "weight_decay": 0.3, "betas": (0.9, 0.95), "eps": 1e-8, "params": [0, 1, 2]}]
        args = argparse.Namespace(optimizer="adam", tensor_model_parallel_size=2)
        common = {
            "iteration": step,
            "args": args,
            "optimizer": {"param_groups": groups},
            "rng": {"extra": torch.ones(3)},
        }
        torch.save(common, folder / "common.pt")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 10]
    check(run.checkpoints[0], weights(5))
    assert settings(run.checkpoints[0])["0", "weight_decay"] == 0.3
    kinds = {(s.kind, s.text) for s in run.checkpoints[0].settings if s.name == "optimizer"}
    assert kinds == {("configured", "adamw"), ("inferred", "Adam or AdamW")}  # its adam decouples the decay
    assert torch.equal(run.checkpoints[1].optimizer_state["a.bias"]["exp_avg"].load(), weights(10)["a.bias"] * 2)
    master = load_run(tmp_path, weights="master").checkpoints[1].parameters["a.bias"]
    assert torch.equal(master.load(), weights(10)["a.bias"] + 0.125)


def test_megatron_decays_no_vectors(tmp_path: Path) -> None:
    """The saved numbers count one rank's parameters only; the rule tells which group a name is in."""
    groups = [{"lr": 0.1, "weight_decay": d, "betas": (0.9, 0.95), "params": [i]} for i, d in enumerate((0.0, 0.3))]
    write(tmp_path / "iter_0000010", weights(), planner=False)
    common = {"iteration": 10, "args": argparse.Namespace(num_layers=1), "optimizer": {"param_groups": groups}}
    torch.save(common, tmp_path / "iter_0000010" / "common.pt")
    run = load_run(tmp_path)
    assert run.parameter_groups == {"0": ("a.bias", "n.weight"), "1": ("a.weight",)}
    assert not [f for f in run.findings if f.code == "parameter-groups-unmapped"]
    assert {s.text for s in run.checkpoints[0].settings if s.name == "optimizer"} <= {None}


def test_megatron_layers_that_share_a_name_are_told_apart(tmp_path: Path) -> None:
    """Every layer is a chunk of a tensor with a first axis of layers, cut along the outputs as well."""
    layers = torch.arange(3 * 4 * 5, dtype=torch.float32).reshape(3, 4, 5)
    norms = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    folder = tmp_path / "iter_0000010"
    flat = {
        "decoder.layers.fc.weight": layers,
        "decoder.layers.norm.weight": norms,
        "embedding.weight": torch.ones(3, 2),
    }
    flat["optimizer.state.exp_avg.decoder.layers.fc.weight"] = layers * 2
    write(folder, flat, dict.fromkeys(flat, 0), planner=False, ranks=3)
    torch.save({"iteration": 10, "args": argparse.Namespace(num_layers=3)}, folder / "common.pt")
    checkpoint = load_run(tmp_path).checkpoints[0]
    assert torch.equal(checkpoint.parameters["embedding.weight"].load(), torch.ones(3, 2))
    for i in range(3):
        assert torch.equal(checkpoint.parameters[f"decoder.layers.{i}.fc.weight"].load(), layers[i])
        assert torch.equal(checkpoint.parameters[f"decoder.layers.{i}.norm.weight"].load(), norms[i])
        assert checkpoint.parameters[f"decoder.layers.{i}.fc.weight"].layout == "OI"
        moment = checkpoint.optimizer_state[f"decoder.layers.{i}.fc.weight"]["exp_avg"]
        assert torch.equal(moment.load(), layers[i] * 2)
    assert len(checkpoint.parameters) == 7


def test_only_the_asked_tensor_is_read(tmp_path: Path) -> None:
    """A chunk that is overwritten with zeros spoils its own tensor alone."""
    table = write(tmp_path / "1", weights(), {"a.weight": 0})
    place = next(v for k, v in table.storage_data.items() if k.fqn == "a.bias")
    run = load_run(tmp_path)
    path = tmp_path / "1" / place.relative_path
    raw = bytearray(path.read_bytes())
    raw[place.offset : place.offset + place.length] = bytes(place.length)
    path.write_bytes(raw)
    with pytest.raises(DamagedFile, match="changed"):
        run.checkpoints[0].parameters["a.weight"].read()
    again = load_run(tmp_path).checkpoints[0].parameters
    assert torch.equal(again["a.weight"].load(), weights()["a.weight"])
    with pytest.raises(SmdError, match="distcp"):
        again["a.bias"].read()


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("payload-ran"),))


def test_a_payload_in_the_index_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = write(tmp_path / "run" / "1", weights() | {"step": 3, "x": 1})
    table.storage_meta = Payload()  # type: ignore[assignment]
    write_table(tmp_path / "run" / "1", table)
    check(load_run(tmp_path / "run").checkpoints[0], weights())
    write_table(tmp_path / "run" / "1", Payload())
    with pytest.raises(NothingToAnalyse, match="no index"):
        load_run(tmp_path / "run")
    assert not Path("payload-ran").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", "", "a\\b"])
def test_a_file_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    table = write(tmp_path / "1", weights())
    table.storage_data = {k: _StorageInfo(name, v.offset, v.length) for k, v in table.storage_data.items()}
    write_table(tmp_path / "1", table)
    with pytest.raises(UnsafeFile, match="outside its folder"):
        open_folder(str(tmp_path / "1"), [".metadata"], None)


@pytest.mark.parametrize(
    ("size", "chunks", "words"),
    [
        ((5, 7), [((0, 0), (3, 7))], "missing or stands twice"),
        ((5, 7), [((0, 0), (3, 7)), ((0, 0), (2, 7))], "overlap"),
        ((5, 6), [((0, 0), (3, 7)), ((3, 0), (2, 7))], "leaves the shape"),
        ((5, 7), [((0, 0), (3, 7)), ((3,), (14,))], "which part"),
        ((1 << 40, 7), [((0, 0), (1 << 40, 7))], "truncated"),
        ((5, 7), [((0, 0), (3, 7)), ((-2, 0), (2, 7))], "cannot be"),
        ((5, 7), [((1, 0), (4, 7)), ((0, 0), (1, 7))], "does not say where"),
    ],
)
def test_an_index_that_lies_is_damaged(tmp_path: Path, size: Any, chunks: Any, words: str) -> None:
    table = write(tmp_path / "1", weights(), {"a.weight": 0})
    entry = table.state_dict_metadata["a.weight"]
    entry.size, entry.chunks = size, [ChunkStorageMetadata(*c) for c in chunks]  # type: ignore[union-attr]
    write_table(tmp_path / "1", table)
    with pytest.raises(DamagedFile, match=words):
        open_folder(str(tmp_path / "1"), [".metadata"], None)


def test_a_chunk_of_another_shape_than_the_index_says(tmp_path: Path) -> None:
    table = write(tmp_path / "1", weights())
    entry = table.state_dict_metadata["a.weight"]
    entry.size, entry.chunks = (7, 5), [ChunkStorageMetadata((0, 0), (7, 5))]  # type: ignore[union-attr,arg-type]
    write_table(tmp_path / "1", table)
    with pytest.raises(DamagedFile, match="index says"):
        load_run(tmp_path).checkpoints[0].parameters["a.weight"].read()


def test_a_missing_part_an_unfinished_save_and_a_cut_file_are_said(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path / f"step-{step}", {f"model|{k}": v for k, v in weights(step).items()}, {"model|a.weight": 0})
    (tmp_path / "step-2" / "__1_0.distcp").unlink()
    (tmp_path / "step-3" / ".metadata").unlink()
    cut = tmp_path / "step-4" / "__1_0.distcp"
    cut.write_bytes(cut.read_bytes()[:-100])
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [1]
    found = {Path(f.where).name: f.message for f in run.findings}
    assert "__1_0.distcp" in found["step-2"]
    assert "unfinished" in found["step-3"]
    assert "truncated" in found["step-4"]
