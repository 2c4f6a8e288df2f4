"""Flax states as msgpack, in pickles and in NumPy archives."""

import pickle
import struct

import numpy as np
import pytest

from smd_analyze.errors import DamagedFile, SmdError
from smd_analyze.loading.discovery import load_run


def packed(value) -> bytes:
    """msgpack as Flax writes it."""
    if isinstance(value, dict):
        return b"\xde" + len(value).to_bytes(2, "big") + b"".join(packed(k) + packed(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return bytes([0x90 + len(value)]) + b"".join(map(packed, value))
    if isinstance(value, str):
        return b"\xd9" + bytes([len(value)]) + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + len(value).to_bytes(4, "big") + value
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return b"\xd3" + value.to_bytes(8, "big", signed=True)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    body = packed([list(value.shape), value.dtype.name, value.tobytes()])
    kind = b"\x03" if isinstance(value, np.generic) else b"\x01"
    return b"\xc9" + len(body).to_bytes(4, "big") + kind + body


def state(step: int) -> dict:
    rng = np.random.default_rng(step)
    params = {
        "conv": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype("f4")},
        "fc": {"kernel": rng.normal(size=(4, 5)).astype("f4"), "bias": np.zeros(5, "f4")},
        "q": {"kernel": rng.normal(size=(4, 2, 3)).astype("f4"), "bias": np.zeros((2, 3), "f4")},
    }
    return {
        "step": np.int32(step),
        "params": params,
        "batch_stats": {"bn": {"mean": np.ones(4, "f4")}},
        "opt_state": {
            "count": np.array(step, "i4"),
            "hyperparams": {"learning_rate": np.array(0.1 / step, "f4"), "weight_decay": np.float32(0.1), "b1": 0.9},
            "inner_state": {"0": {"count": np.array(step, "i4"), "mu": params, "nu": params}, "1": {}},
        },
    }


def check(run) -> None:
    assert [c.step for c in run.checkpoints] == [5, 10]
    last = run.checkpoints[-1]
    assert last.framework == "flax"
    assert run.ordered_by == "step in the file"
    assert {n: t.layout for n, t in last.parameters.items() if len(t.shape) > 1} == {
        "conv.kernel": "HWIO", "fc.kernel": "IO", "q.kernel": "IOO", "q.bias": "OO"
    }  # fmt: skip
    np.testing.assert_array_equal(last.parameters["fc.kernel"].read(), state(10)["params"]["fc"]["kernel"])
    assert list(last.buffers) == ["batch_stats.bn.mean"]
    assert set(last.optimizer_state["fc.kernel"]) == {"exp_avg", "exp_avg_sq", "step"}
    settings = {s.name: s.value if s.text is None else s.text for s in last.settings}
    assert settings == {"learning_rate": 0.01, "weight_decay": 0.1, "beta1": 0.9, "optimizer": "AdamW"}


def test_msgpack(tmp_path):
    for step in (5, 10):
        (tmp_path / f"checkpoint_{step}").write_bytes(packed(state(step)))
    run = load_run(tmp_path)
    check(run)
    assert run.checkpoints[0].parameters["fc.kernel"].extent is not None


def test_pickle(tmp_path):
    for step in (5, 10):
        (tmp_path / f"state_{step}.pkl").write_bytes(pickle.dumps(state(step)))
    check(load_run(tmp_path))


def test_npz_with_slashes(tmp_path):
    def flat(node, prefix=""):
        if not isinstance(node, dict):
            return {prefix: node}
        return {k: v for key, n in node.items() for k, v in flat(n, f"{prefix}/{key}".strip("/")).items()}

    for step in (5, 10):
        np.savez(tmp_path / f"state_{step}.npz", **flat(state(step)))
    check(load_run(tmp_path))


def test_chunked_array(tmp_path):
    whole = np.arange(12, dtype="f4")
    tree = {
        "params": {
            "fc": {
                "kernel": {
                    "__msgpack_chunked_array__": True,
                    "shape": {"0": 3, "1": 4},
                    "chunks": {"0": whole[:7], "1": whole[7:]},
                }
            }
        }
    }
    (tmp_path / "a.msgpack").write_bytes(packed(tree))
    found = load_run(tmp_path / "a.msgpack").checkpoints[0].parameters["fc.kernel"]
    np.testing.assert_array_equal(found.read(), whole.reshape(3, 4))


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b + b"\0", lambda b: b[:1] + b"\xff\xff" + b[3:]])
def test_damaged(tmp_path, damage):
    (tmp_path / "a.msgpack").write_bytes(damage(packed(state(5))))
    with pytest.raises(DamagedFile):
        load_run(tmp_path / "a.msgpack")


def test_array_larger_than_its_bytes(tmp_path):
    body = packed([[1000, 1000], "float32", b"1234"])
    (tmp_path / "a.msgpack").write_bytes(b"\x81\xa6params\x81\xa1w\xc9" + len(body).to_bytes(4, "big") + b"\x01" + body)
    with pytest.raises(DamagedFile, match="leaves its storage"):
        load_run(tmp_path / "a.msgpack")


def test_deep_nesting_ends_in_words(tmp_path):
    (tmp_path / "a.msgpack").write_bytes(b"\x81\xa1a" * 5000 + b"\xc0")
    with pytest.raises(SmdError, match="refused"):
        load_run(tmp_path / "a.msgpack")
