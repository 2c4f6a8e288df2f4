"""Paddle's .pdiparams: arrays without names and the program beside them; and its nested dicts."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.registry import open_document

ARRAYS = {  # in the order of their names, as the file has them
    "batch_norm2d_0.b_0": (4,), "batch_norm2d_0.w_0": (4,), "batch_norm2d_0.w_1": (4,), "batch_norm2d_0.w_2": (4,),
    "conv2d_0.w_0": (4, 3, 2, 2), "linear_0.w_0": (4, 5),
}  # fmt: skip
USED = ["conv2d_0.w_0", "batch_norm2d_0.w_0", "batch_norm2d_0.b_0", "batch_norm2d_0.w_1", "batch_norm2d_0.w_2",
        "linear_0.w_0"]  # fmt: skip


def varint(n: int) -> bytes:
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def arrays(start: float) -> bytes:
    out = b""
    for i, shape in enumerate(ARRAYS.values()):
        desc = field(1, 5) + b"".join(field(2, n) for n in shape)
        data = np.full(shape, start + i, "<f4").tobytes()
        out += b"\0" * 16 + len(desc).to_bytes(4, "little") + desc + data
    return out


def pir() -> str:
    own = [{"#": "p", "A": [0, 1, 1, n], "O": {"%": i}} for i, n in enumerate(reversed(ARRAYS))]
    number = {op["A"][3]: op["O"]["%"] for op in own}
    calls = [{"#": "1.op", "I": [{"%": number[n]}], "O": []} for n in USED]
    return json.dumps({"base_code": {}, "program": {"regions": [{"blocks": [{"ops": [*own, *calls]}]}]}})


def program() -> bytes:
    kept = [field(3, field(1, n.encode()) + field(2, field(1, 7)) + field(3, 1)) for n in USED]
    other = field(3, field(1, b"feed") + field(2, field(1, 9)) + field(3, 1))
    activation = field(3, field(1, b"relu_0.tmp_0") + field(2, field(1, 7)) + field(3, 0))
    return field(1, b"".join([other, *kept, activation]))


@pytest.mark.parametrize("kind", ["json", "pdmodel"])
def test_names_come_from_the_program_beside(tmp_path: Path, kind: str) -> None:
    for step in (10, 20):
        folder = tmp_path / f"step_{step}"
        folder.mkdir()
        (folder / "model.pdiparams").write_bytes(arrays(step))
        if kind == "json":
            (folder / "model.json").write_text(pir())
        else:
            (folder / "model.pdmodel").write_bytes(program())
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [10, 20]
    last = run.checkpoints[-1]
    found = {n: (p.layout, float(p.read().ravel()[0])) for n, p in {**last.parameters, **last.buffers}.items()}
    assert list(found.items()) == [
        ("conv2d_0.weight", ("OIHW", 24)), ("batch_norm2d_0.weight", ("O", 21)), ("batch_norm2d_0.bias", ("O", 20)),
        ("linear_0.weight", ("IO", 25)), ("batch_norm2d_0._mean", ("O", 22)), ("batch_norm2d_0._variance", ("O", 23)),
    ]  # fmt: skip


def test_without_a_program_the_arrays_have_numbers(tmp_path: Path) -> None:
    (tmp_path / "model_1.pdiparams").write_bytes(arrays(0))
    found = load_run(tmp_path).checkpoints[0].parameters
    assert found["4"].shape == (4, 3, 2, 2)


def test_damage_is_named(tmp_path: Path) -> None:
    path, data = tmp_path / "model.pdiparams", arrays(0)

    def read() -> None:
        with open_source(str(path)) as source:
            open_document(source)

    for length in (30, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedFile, match="array"):
            read()
    path.write_bytes(data)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(DamagedFile, match="not a program"):
        read()
    (tmp_path / "model.json").write_text(pir().replace("linear_0.w_0", "conv2d_0.w_0"))
    path.write_bytes(data + data)
    with pytest.raises(DamagedFile, match="holds 12 arrays"):
        read()


class Pair:
    """How Paddle pickles a tensor inside a nested dict: tuple((name, array))."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.pair = (name, array)

    def __reduce__(self) -> tuple:
        return tuple, (self.pair,)


def test_nested_dict(tmp_path: Path) -> None:
    for step in (3, 6):
        w = np.full((4, 5), step, np.float32)
        tree = {
            "model": {"fc.weight": Pair("linear_0.w_0", w), "fc.bias": Pair("linear_0.b_0", w[0])},
            "opt": {
                "linear_0.w_0_moment1_0": Pair("linear_0.w_0_moment1_0", w * 2),
                "linear_0.w_0_moment2_0": Pair("linear_0.w_0_moment2_0", w * 3),
                "LR_Scheduler": {"last_epoch": step, "last_lr": 0.1},
            },
            "step": step, "epoch": 0,
        }  # fmt: skip
        (tmp_path / f"ckpt_{step}.pdparams").write_bytes(pickle.dumps(tree, 2))
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert ([c.step for c in run.checkpoints], run.step_unit) == ([3, 6], "optimizer steps")
    assert {n: p.layout for n, p in last.parameters.items()} == {"fc.weight": "IO", "fc.bias": "O"}
    assert last.optimizer_state["fc.weight"]["exp_avg_sq"].read()[0, 0] == 18
    assert [s.value for s in last.settings if s.name == "learning_rate"] == [0.1]
