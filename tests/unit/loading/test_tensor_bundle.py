"""TensorFlow's checkpoints, written here byte by byte: tables, slices, graphs of objects, names of both generations."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.registry import open_document
from smd_analyze.loading.formats.tensor_bundle import MAGIC, ordered_signed, slice_of

TYPES = {"float32": 1, "int64": 9}
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def nested(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def entry(dtype: int, shape: tuple[int, ...], shard: int, offset: int, size: int, cut: bool = False) -> bytes:
    dimensions = b"".join(nested(2, number(1, n)) for n in shape)
    out = number(1, dtype) + nested(2, dimensions) + number(3, shard) + number(4, offset) + number(5, size)
    return out + (nested(7, b"") if cut else b"")


def table(pairs: list[tuple[bytes, bytes]]) -> bytes:
    out, before = b"", b""
    for key, value in pairs:
        same = next(
            (i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), min(len(key), len(before))
        )
        out += varint(same) + varint(len(key) - same) + varint(len(value)) + key[same:] + value
        before = key
    return out + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def signed(value: int) -> bytes:
    positive = ~value if value < 0 else value
    length = 1
    while positive >= 1 << (7 * length - 1):
        length += 1
    ones = ((1 << length) - 1) << (8 * length - length)
    raw = (positive | ones).to_bytes(length, "big")
    return bytes(b ^ 255 for b in raw) if value < 0 else raw


def slice_key(name: str, extents: list[tuple[int, int]]) -> bytes:
    return (
        b"\0" + name.encode() + b"\0\1" + bytes([1, len(extents)]) + b"".join(signed(a) + signed(n) for a, n in extents)
    )


def write(stem: Path, tensors: dict[str, np.ndarray], names: dict[str, str] | None = None, cut: str = "") -> None:
    """Two shards in turn; `cut` names a tensor that is written in two slices along its first axis."""
    shards = [b"", b""]
    entries: dict[bytes, bytes] = {}
    for i, (key, array) in enumerate(tensors.items()):
        kind, shard = TYPES[str(array.dtype)], i % 2
        if key == cut:
            entries[key.encode()] = entry(kind, array.shape, 0, 0, 0, cut=True)
            for start, part in ((0, array[:3]), (3, array[3:])):
                name = slice_key(key, [(start, len(part)), *((0, -1) for _ in array.shape[1:])])
                entries[name] = entry(kind, part.shape, shard, len(shards[shard]), part.nbytes)
                shards[shard] += part.tobytes()
        else:
            entries[key.encode()] = entry(kind, array.shape, shard, len(shards[shard]), array.nbytes)
            shards[shard] += array.tobytes()
    if names:
        attributes = (
            nested(2, nested(1, b"VALUE") + nested(2, n.encode()) + nested(3, k.encode())) for k, n in names.items()
        )
        graph = b"".join(nested(1, a) for a in attributes)
        text = varint(len(graph)) + b"\0\0\0\0" + graph
        entries[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = entry(7, (), 0, len(shards[0]), len(text))
        shards[0] += text
    body = table([(b"", number(1, 2)), *sorted(entries.items())])
    index = table([(b"z", varint(0) + varint(len(body)))])
    data = body + b"\0" * 5 + index + b"\0" * 5
    foot = varint(0) + varint(0) + varint(len(body) + 5) + varint(len(index))
    Path(f"{stem}.index").write_bytes(data + foot.ljust(40, b"\0") + MAGIC)
    for i, shard in enumerate(shards):
        Path(f"{stem}.data-{i:05d}-of-00002").write_bytes(shard)


def test_objects(tmp_path: Path) -> None:
    kernel = np.arange(72, dtype=np.float32).reshape(3, 3, 2, 4)
    for step in (5, 12):
        keys = {
            "net/layer_with_weights-0/kernel": ("c/kernel", kernel + step),
            "net/layer_with_weights-10/kernel": ("a/kernel", np.ones((4, 5), np.float32)),
            "net/layer_with_weights-2/gamma": ("b/gamma", np.ones(4, np.float32)),
            "net/layer_with_weights-2/moving_mean": ("b/moving_mean", np.ones(4, np.float32)),
            "net/layer_with_weights-0/kernel/.OPTIMIZER_SLOT/optimizer/m": ("Adam/c/kernel/m", kernel),
            "net/layer_with_weights-0/kernel/.OPTIMIZER_SLOT/optimizer/v": ("Adam/c/kernel/v", kernel * 2),
            "optimizer/iter": ("Adam/iter", np.array(step, np.int64)),
            "optimizer/learning_rate": ("Adam/learning_rate", np.array(0.1, np.float32)),
            "save_counter": ("save_counter", np.array(step, np.int64)),
        }
        write(
            tmp_path / f"ckpt-{step}",
            {k + VALUE: a for k, (_, a) in keys.items()},
            {k + VALUE: n for k, (n, _) in keys.items()},
        )
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-12"')
    run = load_run(tmp_path)
    assert not run.findings
    last = run.checkpoints[-1]
    assert [c.step for c in run.checkpoints] == [5, 12]
    assert list(last.parameters) == ["c/kernel", "b/gamma", "a/kernel"]
    assert list(last.buffers) == ["b/moving_mean"]
    np.testing.assert_array_equal(last.parameters["c/kernel"].read(), kernel + 12)
    assert last.parameters["c/kernel"].layout == "HWIO"
    assert last.parameters["c/kernel"].extent is not None
    np.testing.assert_array_equal(last.optimizer_state["c/kernel"]["exp_avg_sq"].read(), kernel * 2)
    assert {s.name: s.value for s in last.settings if s.value is not None} == {"learning_rate": 0.1}
    assert [s.text for s in last.settings if s.name == "optimizer"] == ["Adam"]


def scalar(value: float, kind: type = np.int64) -> np.ndarray:
    return np.array(value, kind)


def steps_of(folder: Path, own: dict[int, int], keys: tuple[str, str] = ("step", "optimizer/_iterations")) -> list[int]:
    """Steps of checkpoints that hold the user's variable and the optimizer's count, in one data file."""
    for i, (mine, made) in enumerate(own.items()):
        folder.mkdir(exist_ok=True)
        tensors = {
            "net/kernel" + VALUE: np.full((3, 4), i, np.float32),
            keys[0] + VALUE: scalar(mine),
            "net/b" + VALUE: np.ones(3, np.float32),
            keys[1] + VALUE: scalar(made),
        }
        order = sorted(tensors)
        shards = [k for k in order if k.split("/")[0] != "net"], [k for k in order if k.split("/")[0] == "net"]
        mixed = [k for pair in zip(*shards, strict=True) for k in pair]  # the writer takes its two files in turn
        write(folder / f"ckpt-{i + 1}", {k: tensors[k] for k in mixed})
    return [c.step for c in load_run(folder).checkpoints]


def test_the_users_step_wins_if_it_goes_along_with_the_updates(tmp_path: Path) -> None:
    assert steps_of(tmp_path / "along", {5: 6, 10: 11, 15: 16}) == [5, 10, 15]
    assert steps_of(tmp_path / "from one", {11: 10, 21: 20}) == [11, 21]
    assert steps_of(tmp_path / "saves", {1: 1, 2: 100, 3: 200}) == [1, 100, 200]  # a step that counts saves
    assert steps_of(tmp_path / "other name", {5: 6, 10: 11}, ("global_step", "opt/_iterations")) == [5, 10]


def test_two_optimizers_have_groups_and_settings_of_their_own(tmp_path: Path) -> None:
    variables = {}
    for side, rate in (("gen", 0.1), ("dis", 0.2)):
        root = f"{side}_optimizer"
        variables |= {
            f"{root}/_iterations": ("adam/iteration", scalar(4)),
            f"{root}/_learning_rate": (f"adam/{side}_rate", scalar(rate, np.float32)),
            f"{root}/_trainable_variables/0": (f"{side}/dense/kernel", np.full((2, 3), rate, np.float32)),
            f"{root}/_variables/2": (f"adam/{side}_dense_kernel_momentum", np.full((2, 3), 7, np.float32)),
            f"{root}/_variables/3": (f"adam/{side}_dense_kernel_velocity", np.full((2, 3), 8, np.float32)),
        }
    tensors = {k + VALUE: a for k, (_, a) in variables.items()}
    write(tmp_path / "ckpt-1", tensors, {k + VALUE: n for k, (n, _) in variables.items()})
    run = load_run(tmp_path)
    assert run.parameter_groups == {
        "gen_optimizer": ("gen/dense/kernel",), "dis_optimizer": ("dis/dense/kernel",),
    }  # fmt: skip
    last = run.checkpoints[-1]
    rates = {s.parameter_group: s.value for s in last.settings if s.name == "learning_rate"}
    assert rates == {"gen_optimizer": pytest.approx(0.1), "dis_optimizer": pytest.approx(0.2)}
    assert last.optimizer_state["gen/dense/kernel"]["exp_avg"].read()[0, 0] == 7


def test_shadows_of_a_moving_average_and_metrics_are_no_weights(tmp_path: Path) -> None:
    w = np.ones((2, 3), np.float32)
    keys = {
        "model/w": ("w", w), "averages/0": ("w/ExponentialMovingAverage", w * 2),
        "keras_api/metrics/0/total": ("total", scalar(3, np.float32)),
        "epoch": ("Variable", scalar(2)),
    }  # fmt: skip
    tensors = {k + VALUE: a for k, (_, a) in keys.items()}
    write(tmp_path / "m-1", tensors, {k + VALUE: n for k, (n, _) in keys.items()})
    last = load_run(tmp_path).checkpoints[-1]
    assert list(last.parameters) == ["w"]
    assert last.parameters["w"].layout == "IO"
    assert last.variants["ema"]["w"].read()[0, 0] == 2
    assert not last.buffers


def test_names_and_slices(tmp_path: Path) -> None:
    table_ = np.arange(28, dtype=np.float32).reshape(7, 4)
    for step in (3, 9):
        tensors = {
            "part/embedding": table_ + step,
            "layer/kernel": np.ones((4, 5), np.float32),
            "layer/kernel/Adam": np.zeros((4, 5), np.float32),
            "layer/kernel/Adam_1": np.ones((4, 5), np.float32),
            "layer/kernel/ExponentialMovingAverage": np.full((4, 5), 7, np.float32),
            "beta1_power": np.array(0.5, np.float32),
            "global_step": np.array(step, np.int64),
        }
        write(tmp_path / f"model.ckpt-{step}", tensors, cut="part/embedding")
        (tmp_path / f"model.ckpt-{step}.meta").write_bytes(b"graph")
    run = load_run(tmp_path)
    assert not run.findings
    last = run.checkpoints[-1]
    assert (last.step, list(last.parameters)) == (9, ["layer/kernel", "part/embedding"])
    np.testing.assert_array_equal(last.parameters["part/embedding"].read(), table_ + 9)
    assert last.parameters["part/embedding"].extent is None
    assert set(last.optimizer_state["layer/kernel"]) == {"exp_avg", "exp_avg_sq", "step"}
    assert last.variants["ema"]["layer/kernel"].read()[0, 0] == 7
    assert len(last.identity) == 3


@pytest.mark.parametrize("value", [0, 1, 63, 64, -1, -64, -65, 8191, 8192, 1 << 30, -(1 << 30)])
def test_ordered_numbers(value: int) -> None:
    raw = signed(value)
    assert ordered_signed(raw, 0) == (value, len(raw))


def test_a_key_that_is_cut_short() -> None:
    key = slice_key("a", [(300, 5)])
    assert slice_of(key, "x") == ("a", (300,))
    for length in range(len(key)):
        with pytest.raises(DamagedFile):
            slice_of(key[:length], "x")


def opened(path: Path) -> None:
    with open_source(str(path)) as source:
        open_document(source)


def test_files_that_lie(tmp_path: Path) -> None:
    write(tmp_path / "m", {"a": np.ones((4, 4), np.float32), "b": np.ones((4, 4), np.float32)})
    index, second = tmp_path / "m.index", tmp_path / "m.data-00001-of-00002"
    data, shard = index.read_bytes(), second.read_bytes()
    second.write_bytes(shard[:-1])
    with pytest.raises(DamagedFile, match="truncated"):
        opened(index)
    second.unlink()
    with pytest.raises(DamagedFile, match="data-00001-of-00002 is missing"):
        opened(index)
    second.write_bytes(shard)
    at = len(data) - 48
    index.write_bytes(data[: at - 5] + b"\1" + data[at - 4 :])
    with pytest.raises(UnsafeFile, match="compressed"):
        opened(index)
    for at in range(len(data) - 8):  # any byte may be wrong: an error of ours, or a tree
        index.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        with suppress(DamagedFile, UnsafeFile):
            opened(index)
