"""Files that carry a graph beside the weights: TorchScript archives and torch.export's .pt2."""

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smd_analyze.errors import DamagedFile, SmdError, UnsafeFile
from smd_analyze.loading.discovery import load_run


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 5)
        self.bn = torch.nn.BatchNorm1d(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.fc(x))


def script(net: Net, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net), path)


def export(net: Net, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(net.eval(), (torch.ones(2, 3),)), path)


@pytest.mark.parametrize(("save", "ending"), [(script, "pt"), (export, "pt2")])
def test_weights_of_an_exported_module(tmp_path: Path, save: Callable[[Net, Path], None], ending: str) -> None:
    nets = {step: Net() for step in (5, 10)}
    for step, net in nets.items():
        net.bn.num_batches_tracked = torch.tensor(step)
        save(net, tmp_path / f"net-{step:05d}.{ending}")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 10]
    for checkpoint in run.checkpoints:
        state = nets[checkpoint.step].state_dict()
        assert set(checkpoint.parameters) == {"fc.weight", "fc.bias", "bn.weight", "bn.bias"}
        for name, tensor in {**checkpoint.parameters, **checkpoint.buffers}.items():
            assert torch.equal(tensor.load(), state[name])
            assert tensor.extent is not None
            raw = Path(tensor.extent.path).read_bytes()[tensor.extent.offset :][: tensor.extent.nbytes]
            assert raw == state[name].numpy().tobytes()


def entry(**changed: Any) -> dict[str, Any]:
    meta = {
        "dtype": 7, "sizes": [{"as_int": 2}, {"as_int": 3}], "strides": [{"as_int": 1}, {"as_int": 2}],
        "storage_offset": {"as_int": 1},
    }  # fmt: skip
    meta |= {k: v for k, v in changed.items() if k in meta}
    made = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta}
    return made | {k: v for k, v in changed.items() if k in made}


def package(path: Path, table: Any, weight: bytes, order: bytes = b"little", packed: bool = False) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("m/data/weights/weight_0", weight)
        archive.writestr("m/data/weights/model_weights_config.json", json.dumps(table))
        archive.writestr("m/byteorder", order)


def test_views_keep_their_strides_and_offset(tmp_path: Path) -> None:
    values = torch.arange(7, dtype=torch.float32)
    package(tmp_path / "a-1.pt2", {"config": {"w": entry()}}, values.numpy().tobytes())
    read = load_run(tmp_path).checkpoints[0].parameters["w"]
    assert torch.equal(read.load(), values[1:].reshape(3, 2).T)
    assert read.extent is None


def test_a_weight_that_was_pickled_is_an_archive_within_the_archive(tmp_path: Path) -> None:
    value = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    torch.save(value, tmp_path / "inner")
    inner = (tmp_path / "inner").read_bytes()
    (tmp_path / "inner").unlink()
    package(tmp_path / "a-1.pt2", {"config": {"w": entry(use_pickle=True)}}, inner)
    assert torch.equal(load_run(tmp_path).checkpoints[0].parameters["w"].load(), value)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"config": {"w": entry(sizes=[{"as_int": 9}, {"as_int": 9}])}}, "leaves its storage"),
        ({"config": {"w": entry(sizes=[{"as_expr": "s0"}, {"as_int": 3}])}}, "not sound"),
        ({"config": {"w": entry(sizes=[{"as_int": -1}, {"as_int": 3}])}}, "not sound"),
        ({"config": {"w": entry(path_name="../other")}}, "missing from the archive"),
        ({"config": {"w": entry(use_pickle=True, sizes=[{"as_int": 1 << 40}])}}, "do not hold"),
        ({"config": []}, "not sound"),
        ([], "not sound"),
    ],
)
def test_a_table_that_lies_is_damaged(tmp_path: Path, table: Any, words: str) -> None:
    package(tmp_path / "a-1.pt2", table, bytes(28))
    with pytest.raises(DamagedFile, match=words):
        load_run(tmp_path / "a-1.pt2")


def test_compressed_weights_another_byte_order_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a-1.pt2"
    package(path, {"config": {"w": entry()}}, bytes(28), packed=True)
    with pytest.raises(UnsafeFile, match="compressed"):
        load_run(path)
    package(path, {"config": {"w": entry()}}, bytes(28), b"big")
    with pytest.raises(DamagedFile, match="big-endian"):
        load_run(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SmdError):
        load_run(path)
