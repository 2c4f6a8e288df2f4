"""One reference run, written by every writer, read through every reader.

Steps 2, 10 and 100; the weights double from each to the next and no two elements are equal, so that any mix-up of
order, scale or axis shows (idea: MDAnalysis, testsuite, BaseReference).
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.registry import FORMATS

STEPS = (2, 10, 100)
RATES = (0.4, 0.2, 0.1)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 5, (2, 4), bias=False)
        self.bn = torch.nn.BatchNorm2d(5)
        self.fc = torch.nn.Linear(5, 7)


def reference(index: int) -> Net:
    """The model at STEPS[index]: 2^index × the first, each tensor a ramp of its own."""
    net = Net()
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters(), 1):
            ramp = torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape)
            parameter.copy_((ramp + 1000 * number) / 64 * 2**index)
        net.bn.running_mean.fill_(0.25 * 2**index)
        net.bn.num_batches_tracked.fill_(STEPS[index])
    return net


def optimizer(net: Net, index: int) -> torch.optim.Optimizer:
    """AdamW with the usual split, moments that double as well."""
    matrices = [p for p in net.parameters() if p.ndim >= 2]
    vectors = [p for p in net.parameters() if p.ndim < 2]
    made = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}], lr=RATES[index]
    )
    for parameter in net.parameters():
        made.state[parameter] = {
            "step": torch.tensor(float(STEPS[index])),
            "exp_avg": parameter.detach() * 3,
            "exp_avg_sq": parameter.detach() * 5,
        }
    return made


Writer = Callable[[Path, int, Net], None]


def torch_zip(folder: Path, index: int, net: Net) -> None:
    torch.save(net.state_dict(), folder / f"step_{STEPS[index]}.pt")


def torch_legacy(folder: Path, index: int, net: Net) -> None:
    torch.save(net.state_dict(), folder / f"step_{STEPS[index]}.pth", _use_new_zipfile_serialization=False)


def torch_views(folder: Path, index: int, net: Net) -> None:
    """Every tensor a view into one storage, with gaps and in an order of axes that is not the file's."""
    state = net.state_dict()
    out = {}
    for name, tensor in state.items():
        if tensor.ndim >= 2:
            wide = torch.zeros(*tensor.shape[::-1], 2)
            wide[..., 1] = tensor.permute(*range(tensor.ndim)[::-1])
            out[name] = wide[..., 1].permute(*range(tensor.ndim)[::-1])
        else:
            out[name] = tensor
    torch.save(out, folder / f"step_{STEPS[index]}.pt")


def whole_module(folder: Path, index: int, net: Net) -> None:
    torch.save(net, folder / f"step_{STEPS[index]}.pt")


def trainer_dict(folder: Path, index: int, net: Net) -> None:
    made = {"model": net.state_dict(), "optimizer": optimizer(net, index).state_dict(), "iteration": STEPS[index]}
    torch.save(made, folder / f"ckpt{index}.pth.tar")


def wrapped(folder: Path, index: int, net: Net) -> None:
    made = {
        "state_dict": {f"_orig_mod.module.{k}": v for k, v in net.state_dict().items()},
        "global_step": STEPS[index],
    }
    torch.save(made, folder / f"checkpoint_{index}.pth")


def lightning(folder: Path, index: int, net: Net) -> None:
    made = {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": net.state_dict(),
        "optimizer_states": [optimizer(net, index).state_dict()],
        "lr_schedulers": [],
        "global_step": STEPS[index],
        "epoch": index,
        "hyper_parameters": {"lr": 0.4},
    }
    torch.save(made, folder / f"epoch={index}-step={STEPS[index]}.ckpt")


def safetensors(folder: Path, index: int, net: Net) -> None:
    save_file(net.state_dict(), folder / f"step_{STEPS[index]}.safetensors")


def numpy_pickle(folder: Path, index: int, net: Net) -> None:
    arrays = {k: np.asarray(v) for k, v in net.state_dict().items()}
    arrays["conv.weight"] = np.asfortranarray(arrays["conv.weight"])
    with (folder / f"step_{STEPS[index]}.pkl").open("wb") as file:
        pickle.dump(arrays, file, protocol=(2, 4, 5)[index])


def trainer_folder(folder: Path, index: int, net: Net) -> None:
    here = folder / f"checkpoint-{STEPS[index]}"
    here.mkdir()
    save_file(net.state_dict(), here / "model.safetensors")
    torch.save(optimizer(net, index).state_dict(), here / "optimizer.pt")
    (here / "trainer_state.json").write_text(json.dumps({"global_step": STEPS[index], "epoch": 0.5, "log_history": []}))


def shards(folder: Path, index: int, net: Net, binary: bool = False) -> None:
    here = folder / f"checkpoint-{STEPS[index]}"
    here.mkdir()
    ending, stem = ("bin", "pytorch_model") if binary else ("safetensors", "model")
    table = {}
    for number, part in enumerate((list(net.state_dict())[::2], list(net.state_dict())[1::2]), 1):
        name = f"{stem}-{number:05d}-of-00002.{ending}"
        tensors = {k: net.state_dict()[k] for k in part}
        torch.save(tensors, here / name) if binary else save_file(tensors, here / name)
        table |= dict.fromkeys(part, name)
    (here / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": table}))


def binary_shards(folder: Path, index: int, net: Net) -> None:
    shards(folder, index, net, binary=True)


WRITERS: tuple[Writer, ...] = (
    torch_zip, torch_legacy, torch_views, whole_module, trainer_dict, wrapped, lightning, safetensors, numpy_pickle,
    trainer_folder, shards, binary_shards,
)  # fmt: skip
WITH_OPTIMIZER = (trainer_dict, lightning, trainer_folder)


def write(folder: Path, writer: Writer) -> None:
    for index in (1, 2, 0):  # not in the order of the steps
        writer(folder, index, reference(index))


@pytest.mark.parametrize("writer", WRITERS)
def test_every_reader_gives_back_the_reference_run(tmp_path: Path, writer: Writer) -> None:
    write(tmp_path, writer)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == list(STEPS)
    assert run.step_unit == "optimizer steps"
    for index, checkpoint in enumerate(run.checkpoints):
        net = reference(index)
        expected = {n: p.detach().numpy() for n, p in net.named_parameters()}
        assert set(checkpoint.parameters) == set(expected)
        assert set(checkpoint.buffers) == {n for n, _ in net.named_buffers()}
        for name, array in expected.items():
            tensor = checkpoint.parameters[name]
            assert tensor.shape == array.shape
            assert tensor.dtype == "float32"
            np.testing.assert_array_equal(tensor.read(), array)
            if tensor.extent is not None:
                extent = tensor.extent
                raw = Path(extent.path).read_bytes()[extent.offset : extent.offset + extent.nbytes]
                assert raw == array.tobytes()
        assert float(checkpoint.buffers["bn.running_mean"].load()[0]) == 0.25 * 2**index
        assert checkpoint.nbytes == sum(size for size, _ in checkpoint.identity.values())


@pytest.mark.parametrize("writer", [w for w in WRITERS if w is not torch_views and w is not numpy_pickle])
def test_raw_tensors_say_where_they_lie(tmp_path: Path, writer: Writer) -> None:
    write(tmp_path, writer)
    for checkpoint in load_run(tmp_path).checkpoints:
        assert all(t.extent is not None for t in checkpoint.parameters.values())


@pytest.mark.parametrize("writer", WITH_OPTIMIZER)
def test_every_reader_gives_back_the_settings_in_force(tmp_path: Path, writer: Writer) -> None:
    write(tmp_path, writer)
    run = load_run(tmp_path)
    assert run.parameter_groups == {"0": ("conv.weight", "fc.weight"), "1": ("bn.weight", "bn.bias", "fc.bias")} or {
        g: set(n) for g, n in run.parameter_groups.items()
    } == {"0": {"conv.weight", "fc.weight"}, "1": {"bn.weight", "bn.bias", "fc.bias"}}
    for index, checkpoint in enumerate(run.checkpoints):
        found = {(s.parameter_group, s.name): s.value for s in checkpoint.settings if s.kind == "in force"}
        assert found["0", "learning_rate"] == found["1", "learning_rate"] == RATES[index]
        assert (found["0", "weight_decay"], found["1", "weight_decay"]) == (0.3, 0.0)
        assert (found["0", "beta1"], found["0", "beta2"]) == (0.9, 0.999)
        assert {s.text for s in checkpoint.settings if s.name == "optimizer"} == {"AdamW"}
        rates = [s for s in checkpoint.settings if s.name == "learning_rate" and s.kind == "in force"]
        assert {s.applies for s in rates} == {"next update"}


@pytest.mark.parametrize("writer", [trainer_dict, lightning])
def test_optimizer_state_belongs_to_its_parameter(tmp_path: Path, writer: Writer) -> None:
    write(tmp_path, writer)
    for index, checkpoint in enumerate(load_run(tmp_path).checkpoints):
        for name, parameter in reference(index).named_parameters():
            state = checkpoint.optimizer_state[name]
            np.testing.assert_array_equal(state["exp_avg"].read(), parameter.detach().numpy() * 3)
            assert float(state["step"].read()) == STEPS[index]


@pytest.mark.parametrize("writer", WRITERS)
def test_every_file_is_recognised_by_exactly_one_format(tmp_path: Path, writer: Writer) -> None:
    write(tmp_path, writer)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".json":
            with open_source(str(path)) as source:
                assert len([f.name for f in FORMATS if f.matches(source)]) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_other_number_types_keep_their_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.arange(-12, 12, dtype=torch.float32).reshape(4, 6).to(dtype)
    torch.save({"a.weight": weight}, tmp_path / "step_1.pt")
    save_file({"a.weight": weight}, tmp_path / "other.safetensors")
    for path in tmp_path.iterdir():
        tensor = load_run(path).checkpoints[0].parameters["a.weight"]
        assert tensor.dtype == str(dtype).removeprefix("torch.")
        assert tensor.load().dtype == dtype
        assert torch.equal(tensor.load().float(), weight.float())
