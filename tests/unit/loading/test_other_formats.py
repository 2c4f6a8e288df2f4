"""MXNet, GGUF and Equinox files; Paddle's and MLX' pairs of files."""

import json
import pickle
import struct

import numpy as np
import pytest

from smd_analyze.errors import DamagedFile, UnknownFormat
from smd_analyze.loading.discovery import load_run

KERNEL = np.arange(24, dtype="f4").reshape(3, 2, 2, 2)
MATRIX = np.arange(20, dtype="f4").reshape(4, 5) - 7
VECTOR = np.arange(4, dtype="f4") + 1


def mxnet_file(arrays: dict[str, np.ndarray]) -> bytes:
    out = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for a in arrays.values():
        out += struct.pack("<Iii", 0xF993FAC9, 0, a.ndim) + struct.pack(f"<{a.ndim}q", *a.shape)
        out += struct.pack("<iii", 1, 0, 0) + a.tobytes()
    return out + struct.pack("<Q", len(arrays)) + b"".join(struct.pack("<Q", len(n)) + n.encode() for n in arrays)


class SGD:
    def __init__(self, step: int) -> None:
        self.lr, self.wd, self.momentum, self.num_update = 0.1, 1e-4, 0.9, step


def test_mxnet(tmp_path):
    for step in (5, 10):
        arrays = {"arg:conv0_weight": KERNEL * step, "arg:bn_gamma": VECTOR, "aux:bn_moving_mean": VECTOR}
        (tmp_path / f"net-{step // 5:04}.params").write_bytes(mxnet_file(arrays))
        (tmp_path / f"net-{step // 5:04}.states").write_bytes(pickle.dumps(({}, SGD(step))))
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert [c.step for c in run.checkpoints] == [5, 10]
    assert (list(last.parameters), list(last.buffers)) == (["conv0_weight", "bn_gamma"], ["bn_moving_mean"])
    np.testing.assert_array_equal(last.parameters["conv0_weight"].read(), KERNEL * 10)
    assert last.parameters["conv0_weight"].layout == "OIHW"
    settings = {s.name: s.value if s.text is None else s.text for s in last.settings}
    assert settings == {"learning_rate": 0.1, "weight_decay": 1e-4, "momentum": 0.9, "optimizer": "SGD"}


@pytest.mark.parametrize("at", [60, 16, -3])
def test_mxnet_damaged(tmp_path, at):
    whole = mxnet_file({"w": MATRIX})
    data = whole[:at] + b"\xff" * 8 + whole[at + 8 :] if at == 16 else whole[:at]
    (tmp_path / "n.params").write_bytes(data)
    with pytest.raises(DamagedFile):
        load_run(tmp_path / "n.params")


def test_unreadable_twin_is_a_finding(tmp_path):
    (tmp_path / "n.params").write_bytes(mxnet_file({"w_weight": MATRIX}))
    (tmp_path / "n.states").write_bytes(b"")
    run = load_run(tmp_path)
    assert list(run.checkpoints[0].parameters) == ["w_weight"]
    assert [f.code for f in run.findings] == ["unreadable-file"]


def gguf_file(tensors: dict[str, tuple[int, np.ndarray]]) -> bytes:
    def text(s: str) -> bytes:
        return struct.pack("<Q", len(s)) + s.encode()

    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 2)
    out += text("general.name") + struct.pack("<I", 8) + text("net")
    out += text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")
    data = b""
    for name, (kind, array) in tensors.items():
        out += text(name) + struct.pack(f"<I{array.ndim}Q", array.ndim, *array.shape[::-1])
        out += struct.pack("<IQ", kind, len(data))
        data += array.tobytes() + bytes(-array.nbytes % 32)
    return out + bytes(-len(out) % 32) + data


def test_gguf(tmp_path):
    (tmp_path / "a.gguf").write_bytes(
        gguf_file({"token_embd.weight": (0, MATRIX), "q.weight": (1, MATRIX.astype("f2")), "x.weight": (8, MATRIX)})
    )
    run = load_run(tmp_path / "a.gguf")
    found = run.checkpoints[0].parameters
    assert {n: t.layout for n, t in found.items()} == {"token_embd.weight": None, "q.weight": "OI"}
    np.testing.assert_array_equal(found["q.weight"].read(), MATRIX.astype("f2"))
    assert [f.code for f in run.findings] == ["quantised-tensors"]
    assert "x.weight" in run.findings[0].message


def test_gguf_quantised_or_cut(tmp_path):
    (tmp_path / "a.gguf").write_bytes(gguf_file({"x.weight": (8, MATRIX)}))
    with pytest.raises(UnknownFormat, match="quantised"):
        load_run(tmp_path / "a.gguf")
    (tmp_path / "b.gguf").write_bytes(gguf_file({"x.weight": (0, MATRIX)})[:-40])
    with pytest.raises(DamagedFile):
        load_run(tmp_path / "b.gguf")


@pytest.mark.parametrize("header", [False, True])
def test_equinox(tmp_path, header):
    model = [MATRIX, VECTOR]
    for step in (5, 10):
        with (tmp_path / f"s_{step}.eqx").open("wb") as file:
            if header:
                file.write(json.dumps({"learning_rate": 0.2}).encode() + b"\n")
            for array in [*model, np.array(step * 2), *model, *model]:
                np.save(file, array)
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert [c.step for c in run.checkpoints] == [10, 20]
    assert {n: t.layout for n, t in last.parameters.items()} == {"weight_0": "OI", "vector_1": "O"}
    np.testing.assert_array_equal(last.parameters["weight_0"].read(), MATRIX)
    assert set(last.optimizer_state["weight_0"]) == {"exp_avg", "exp_avg_sq", "step"}
    assert ("learning_rate" in {s.name for s in last.settings}) == header


def test_equinox_truncated(tmp_path):
    np.save(tmp_path / "a.npy", MATRIX)
    (tmp_path / "a.eqx").write_bytes((tmp_path / "a.npy").read_bytes() * 2 + b"\x93NUMPY\x01")
    with pytest.raises(DamagedFile):
        load_run(tmp_path / "a.eqx")


def test_paddle(tmp_path):
    for epoch in (1, 2):
        titles = {"fc.weight": "linear_0.w_0", "conv.weight": "conv2d_0.w_0", "bn._mean": "bn_0.w_1"}
        weights = {"fc.weight": MATRIX, "conv.weight": KERNEL * epoch, "bn._mean": VECTOR}
        state = {"linear_0.w_0_velocity_0": MATRIX, "LR_Scheduler": {"last_epoch": 5 * epoch, "last_lr": 0.1 / epoch}}
        (tmp_path / f"{epoch}.pdparams").write_bytes(pickle.dumps({**weights, "StructuredToParameterName@@": titles}))
        (tmp_path / f"{epoch}.pdopt").write_bytes(pickle.dumps(state))
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert ([c.step for c in run.checkpoints], run.step_unit) == ([5, 10], "scheduler steps")
    assert {n: t.layout for n, t in last.parameters.items()} == {"fc.weight": "IO", "conv.weight": "OIHW"}
    assert list(last.buffers) == ["bn._mean"]
    assert list(last.optimizer_state) == ["fc.weight"]
    settings = [(s.name, s.value, s.applies) for s in last.settings if s.value is not None]
    assert settings == [("learning_rate", 0.05, "next update")]


def test_mlx_pair(tmp_path):
    def save(name: str, arrays: dict[str, np.ndarray]) -> None:
        entries: dict = {"__metadata__": None}
        data = b""
        for title, a in arrays.items():
            kind = {"f4": "F32", "u8": "U64"}[a.dtype.str[1:]]
            entries[title] = {"dtype": kind, "shape": a.shape, "data_offsets": [len(data), len(data) + a.nbytes]}
            data += a.tobytes()
        header = json.dumps(entries).encode()
        (tmp_path / name).write_bytes(struct.pack("<Q", len(header)) + header + data)

    for step in (5, 10):
        save(f"{step}_model.safetensors", {"conv.weight": KERNEL * step})
        state = {"conv.weight.m": KERNEL, "conv.weight.v": KERNEL, "learning_rate": np.array(0.1, "f4")}
        save(f"{step}_optimizer.safetensors", {**state, "step": np.array(step * 3, "u8")})
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert [c.step for c in run.checkpoints] == [15, 30]
    assert not run.findings
    assert last.parameters["conv.weight"].layout == "OHWI"
    assert set(last.optimizer_state["conv.weight"]) == {"exp_avg", "exp_avg_sq", "step"}
    assert {s.name: s.value for s in last.settings}["learning_rate"] == 0.1
    np.testing.assert_array_equal(run.checkpoints[0].parameters["conv.weight"].read(), KERNEL * 5)
