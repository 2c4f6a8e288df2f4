"""MXNet's pickled optimizer beside the weights: its numbers, and the velocities that belong to a parameter for sure."""

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smd_analyze.loading.discovery import load_run
from smd_analyze.records.run import Checkpoint

ARRAYS = {
    "conv_weight": np.arange(24, dtype="f4").reshape(3, 2, 2, 2),
    "bn_gamma": np.arange(3, dtype="f4"),
    "bn_beta": np.arange(3, dtype="f4") + 5,
    "fc_weight": np.arange(15, dtype="f4").reshape(5, 3),
}


def raw(array: np.ndarray) -> bytes:
    """NDArray::Save."""
    head = struct.pack("<Iii", 0xF993FAC9, 0, array.ndim) + struct.pack(f"<{array.ndim}q", *array.shape)
    return head + struct.pack("<iii", 1, 0, 0) + array.tobytes()


class NDArray:
    def __init__(self, array: np.ndarray) -> None:
        self.handle = raw(array)


class Scheduler:
    def __init__(self, base_lr: float, warmup_steps: int) -> None:
        self.base_lr, self.warmup_steps = base_lr, warmup_steps


class SGD:
    def __init__(self, **more: Any) -> None:
        self.lr, self.wd, self.momentum, self.num_update = 0.4, 1e-4, 0.9, 10
        self.__dict__.update(more)


class Adam(SGD):
    pass


def read(folder: Path, states: dict[int, Any], optimizer: SGD) -> Checkpoint:
    names = b"".join(struct.pack("<Q", len(n)) + n.encode() for n in ARRAYS)
    count = struct.pack("<Q", len(ARRAYS))
    whole = struct.pack("<QQ", 0x112, 0) + count + b"".join(raw(a) for a in ARRAYS.values()) + count + names
    (folder / "net-0002.params").write_bytes(whole)
    (folder / "net-0002.states").write_bytes(pickle.dumps((states, optimizer)))
    return load_run(folder).checkpoints[0]


def test_only_states_of_a_size_of_their_own_are_told(tmp_path: Path) -> None:
    """Gluon numbers by sorted names, which save_parameters does not write: gamma and beta cannot be told apart."""
    order = ("bn_beta", "bn_gamma", "conv_weight", "fc_weight")
    found = read(tmp_path, {i: NDArray(-ARRAYS[n]) for i, n in enumerate(order)}, SGD(idx2name={})).optimizer_state
    assert set(found) == {"conv_weight", "fc_weight"}
    for name in found:
        np.testing.assert_array_equal(found[name]["velocity"].read(), -ARRAYS[name])


def test_names_that_were_saved_tell_all(tmp_path: Path) -> None:
    order = ("bn_beta", "bn_gamma", "conv_weight", "fc_weight")
    states = {i: (NDArray(ARRAYS[n] + 1), NDArray(ARRAYS[n] + 2)) for i, n in enumerate(order)}
    found = read(tmp_path, states, Adam(idx2name=dict(enumerate(order)))).optimizer_state
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name]["exp_avg"].read(), array + 1)
        np.testing.assert_array_equal(found[name]["exp_avg_sq"].read(), array + 2)


def test_states_without_arrays(tmp_path: Path) -> None:
    assert not read(tmp_path, {0: None, 1: "x", 2: NDArray(ARRAYS["bn_beta"][:2])}, SGD()).optimizer_state


@pytest.mark.parametrize(("warmup", "kind"), [(0, "in force"), (100, "configured")])
def test_a_schedulers_last_rate_is_the_one_in_force(tmp_path: Path, warmup: int, kind: str) -> None:
    settings = read(tmp_path, {}, SGD(lr_scheduler=Scheduler(0.05, warmup))).settings
    found = {s.name: (s.value, s.kind) for s in settings}
    assert found["learning_rate"] == (0.05, kind)
    assert found["weight_decay"] == (1e-4, "in force")
    assert [s.text for s in settings if s.name == "schedule"] == ["Scheduler"]
