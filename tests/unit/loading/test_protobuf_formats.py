"""MindSpore, ONNX and Caffe files, written here by a few lines of protocol buffers."""

import numpy as np
import pytest

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.discovery import load_run


def varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


KERNEL = np.arange(24, dtype="f4").reshape(3, 2, 2, 2)
MATRIX = np.arange(20, dtype="f4").reshape(4, 5) - 7


def record(name: str, array: np.ndarray, part: bytes | None = None) -> bytes:
    kind = {"f4": "Float32", "i8": "Int64"}[array.dtype.str[1:]]
    dims = b"".join(field(1, n) for n in array.shape or (0,))
    return field(
        1, field(1, name) + field(2, dims + field(2, kind) + field(3, array.tobytes() if part is None else part))
    )


def test_mindspore(tmp_path):
    for step in (5, 10):
        raw = MATRIX.tobytes()
        (tmp_path / f"net-{step // 5}_5.ckpt").write_bytes(
            record("conv.weight", KERNEL * step)
            + record("bn.gamma", np.ones(3, "f4"))
            + record("bn.moving_mean", np.ones(3, "f4"))
            + record("fc.weight", MATRIX, raw[:40])  # large tensors come in slices
            + record("fc.weight", MATRIX, raw[40:])
            + record("step_num", np.array(step))
        )
        (tmp_path / f"opt-{step // 5}_5.ckpt").write_bytes(
            record("learning_rate", np.array(0.1, "f4")) + record("moments.conv.weight", KERNEL)
        )
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert ([c.step for c in run.checkpoints], last.framework) == ([5, 10], "mindspore")
    assert (list(last.parameters), list(last.buffers)) == (["conv.weight", "bn.gamma", "fc.weight"], ["bn.moving_mean"])
    np.testing.assert_array_equal(last.parameters["conv.weight"].read(), KERNEL * 10)
    np.testing.assert_array_equal(last.parameters["fc.weight"].read(), MATRIX)
    assert last.parameters["conv.weight"].layout == "OIHW"
    assert last.parameters["conv.weight"].extent is not None
    assert list(last.optimizer_state["conv.weight"]) == ["momentum_buffer"]
    assert {s.name: s.value for s in last.settings}["learning_rate"] == 0.1


def test_mindspore_truncated(tmp_path):
    (tmp_path / "net.ckpt").write_bytes(record("conv.weight", KERNEL)[:-5])
    with pytest.raises(DamagedFile):
        load_run(tmp_path / "net.ckpt")


def initializer(name: str, array: np.ndarray, data: bytes) -> bytes:
    dims = b"".join(field(1, n) for n in array.shape)
    return field(5, dims + field(2, 1) + field(8, name) + data)


def node(kind: str, *inputs: str, flag: str = "") -> bytes:
    attribute = field(5, field(1, flag) + field(3, 1)) if flag else b""
    return field(1, b"".join(field(1, i) for i in inputs) + field(4, kind) + attribute)


def model(*parts: bytes) -> bytes:
    return field(1, 9) + field(7, b"".join(parts)) + field(14, field(1, "step") + field(2, "70"))


def test_onnx(tmp_path):
    (tmp_path / "m_1.onnx").write_bytes(
        model(
            node("Conv", "x", "k"),
            node("MatMul", "y", "a"),
            node("Gemm", "z", "b", flag="transB"),
            node("BatchNormalization", "u", "s", "t", "mean", "var"),
            initializer("k", KERNEL, field(9, KERNEL.tobytes())),
            initializer("a", MATRIX, field(4, MATRIX.tobytes())),
            initializer("b", MATRIX, field(9, MATRIX.tobytes())),
            *(initializer(n, np.ones(3), field(9, np.ones(3, "f4").tobytes())) for n in ("s", "t", "mean", "var")),
        )
    )
    found = load_run(tmp_path / "m_1.onnx").checkpoints[0]
    assert found.step == 70
    assert {n: t.layout for n, t in found.parameters.items()} == {"k": "OIHW", "a": "IO", "b": "OI", "s": "O", "t": "O"}
    assert list(found.buffers) == ["mean", "var"]
    for name, array in {"k": KERNEL, "a": MATRIX}.items():
        np.testing.assert_array_equal(found.parameters[name].read(), array)


def test_onnx_axes_of_kernels_that_are_passed_on_and_kernels_that_hold_a_norm(tmp_path):
    def passed(kind: str, source: str, result: str) -> bytes:
        return field(1, field(1, source) + field(2, result) + field(4, kind))

    (tmp_path / "m_1.onnx").write_bytes(
        model(
            passed("Transpose", "a", "a.t"),
            passed("Cast", "a.t", "a.c"),
            node("MatMul", "y", "a.c"),
            passed("Identity", "b", "b.i"),
            node("MatMul", "z", "b.i"),
            node("Conv", "x", "onnx::Conv_34", "onnx::Conv_35"),
            *(initializer(n, MATRIX, field(9, MATRIX.tobytes())) for n in ("a", "b")),
            initializer("onnx::Conv_34", KERNEL, field(9, KERNEL.tobytes())),
        )
    )
    run = load_run(tmp_path / "m_1.onnx")
    layouts = {n: t.layout for n, t in run.checkpoints[0].parameters.items()}
    assert layouts == {"a": "OI", "b": "IO", "onnx::Conv_34": "OIHW"}
    assert [(f.code, f.where) for f in run.findings] == [("folded-normalization", "onnx::Conv_34")]


def outside(location: str, offset: int = 8, length: int = 80) -> bytes:
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    return b"".join(field(13, field(1, k) + field(2, v)) for k, v in entries.items()) + field(14, 1)


def test_onnx_external_data(tmp_path):
    (tmp_path / "m.onnx.data").write_bytes(bytes(8) + MATRIX.tobytes())
    (tmp_path / "m.onnx").write_bytes(model(initializer("fc.weight", MATRIX, outside("m.onnx.data"))))
    run = load_run(tmp_path)
    assert not run.findings
    tensor = run.checkpoints[0].parameters["fc.weight"]
    np.testing.assert_array_equal(tensor.read(), MATRIX)
    assert tensor.extent is not None
    assert tensor.extent.path.endswith(".data")
    assert tensor.extent.offset == 8


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "", "link"])
def test_onnx_data_elsewhere_is_refused(tmp_path, location):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(bytes(100))
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "m.onnx").write_bytes(model(initializer("w", MATRIX, outside(location))))
    with pytest.raises(UnsafeFile, match="outside|out of"):
        load_run(tmp_path / "in" / "m.onnx")


@pytest.mark.parametrize(("offset", "length"), [(8, 800), (-4, 80), (8, 40)])
def test_onnx_data_too_short(tmp_path, offset, length):
    (tmp_path / "d").write_bytes(bytes(88))
    (tmp_path / "m.onnx").write_bytes(model(initializer("w", MATRIX, outside("d", offset, length))))
    with pytest.raises(DamagedFile):
        load_run(tmp_path / "m.onnx")


def blob(array: np.ndarray, old: bool) -> bytes:
    if old:
        shape = b"".join(field(i + 1, n) for i, n in enumerate((1,) * (4 - array.ndim) + array.shape))
    else:
        shape = field(7, field(1, b"".join(varint(n) for n in array.shape)))
    return shape + field(5, array.tobytes())


@pytest.mark.parametrize("old", [False, True])
def test_caffe(tmp_path, old):
    number, title, kind, held = (2, 4, 5, 6) if old else (100, 1, 2, 7)
    types: tuple = (4, 14) if old else ("Convolution", "InnerProduct")
    for step in (100, 200):
        layers = [
            field(number, field(title, "conv") + field(kind, types[0]) + field(held, blob(KERNEL * step, old))),
            field(
                number,
                field(title, "ip")
                + field(kind, types[1])
                + field(held, blob(MATRIX, old))
                + field(held, blob(MATRIX[:, 0].copy(), old)),
            ),
        ]
        if not old:
            layers.append(field(100, field(1, "bn") + field(2, "BatchNorm") + field(7, blob(np.ones(3, "f4"), old))))
        (tmp_path / f"n_iter_{step}.caffemodel").write_bytes(field(1, "net") + b"".join(layers))
        (tmp_path / f"n_iter_{step}.solverstate").write_bytes(field(1, step) + field(2, "n"))
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert [c.step for c in run.checkpoints] == [100, 200]
    assert run.ordered_by == "iter in the .solverstate"
    assert {n: t.layout for n, t in last.parameters.items()} == {
        "conv.weight": "OIHW",
        "ip.weight": "OI",
        "ip.bias": "O",
    }
    assert list(last.buffers) == ([] if old else ["bn.running_mean"])
    np.testing.assert_array_equal(last.parameters["conv.weight"].read(), KERNEL * 200)
    np.testing.assert_array_equal(last.parameters["ip.weight"].read(), MATRIX)
