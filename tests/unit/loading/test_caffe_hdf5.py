"""Caffe's HDF5 files, and what solver.prototxt says of the training."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.sidecars import prototxt
from smd_analyze.schedule.resolve import resolve_schedule

BLOBS = {
    "conv1/0": (4, 3, 2, 2), "conv1/1": (4,), "inception/1x1/0": (5, 4, 1, 1), "bn1/0": (4,), "bn1/1": (4,),
    "bn1/2": (1,), "ip1/0": (3, 20),
}  # fmt: skip
SOLVER = """
# a comment: base_lr: 9
net: "train.prototxt"
base_lr: 0.01  # the start
momentum: 0.9
weight_decay: 5e-4
lr_policy: "%s"
gamma: 0.1
stepsize: 100
stepvalue: 150
stepvalue: 250
power: 2
max_iter: 400
test_state: { stage: 'x' base_lr: 7 }
type: "%s"
"""


def write(folder: Path, step: int) -> None:
    with h5py.File(folder / f"net_iter_{step}.caffemodel.h5", "w") as f:
        for name, shape in BLOBS.items():
            f[f"data/{name}"] = np.full(shape, step, np.float32)
        f.create_group("data/relu1")
    with h5py.File(folder / f"net_iter_{step}.solverstate.h5", "w") as f:
        f["iter"] = np.array([step + 1], np.int32)
        f["current_step"] = np.array([0], np.int32)
        f["learned_net"] = "net"
        for i, name in enumerate(BLOBS):
            f[f"history/{i}"] = np.full(BLOBS[name], i, np.float32)


def test_weights_buffers_and_iteration(tmp_path: Path) -> None:
    for step in (100, 200):
        write(tmp_path, step)
    run = load_run(tmp_path)
    assert ([c.step for c in run.checkpoints], run.step_unit) == ([101, 201], "optimizer steps")
    last = run.checkpoints[-1]
    assert {n: p.layout for n, p in last.parameters.items()} == {
        "conv1.weight": "OIHW", "conv1.bias": "O", "inception/1x1.weight": "OIHW", "ip1.weight": "OI",
    }  # fmt: skip
    assert set(last.buffers) == {"bn1.running_mean", "bn1.running_var", "bn1.scale_factor"}
    assert (last.parameters["conv1.weight"].read() == 200).all()
    assert last.framework == "caffe"


def test_history_is_given_only_where_its_size_tells_the_blob(tmp_path: Path) -> None:
    write(tmp_path, 100)
    state = load_run(tmp_path).checkpoints[-1].optimizer_state
    assert set(state) == {"conv1.weight", "inception/1x1.weight", "ip1.weight"}  # vectors of 4 are several
    assert (state["ip1.weight"]["history"].read() == 6).all()


@pytest.mark.parametrize(
    ("policy", "factor"),
    [
        ("fixed", lambda u: 1.0 + 0 * u),
        ("step", lambda u: 0.1 ** np.floor((u - 1) / 100)),
        ("multistep", lambda u: 0.1 ** ((u - 1 >= 150).astype(float) + (u - 1 >= 250))),
        ("inv", lambda u: (1 + 0.1 * (u - 1)) ** -2.0),
        ("poly", lambda u: (1 - (u - 1) / 400) ** 2),
        ("exp", lambda u: 0.1 ** (u - 1)),
    ],
)
def test_policies_are_followed_exactly(tmp_path: Path, policy: str, factor) -> None:
    (tmp_path / "solver.prototxt").write_text(SOLVER % (policy, "SGD"))
    for step in (99, 199, 299):
        write(tmp_path, step)
    table = resolve_schedule(load_run(tmp_path)).table
    assert set(table["optimizer"]) == {"sgd"}
    for row in table.iter_rows(named=True):
        u = np.arange(row["step_from"] + 1, row["step_to"] + 1)
        assert row["sum_learning_rate"] == pytest.approx(0.01 * factor(u).sum(), rel=1e-9)
        assert row["sum_decay"] == pytest.approx(5e-4 * 0.01 * factor(u).sum(), rel=1e-9)
        assert row["momentum"] == 0.9


def test_what_a_solver_says(tmp_path: Path) -> None:
    path = tmp_path / "lenet_solver.prototxt"
    path.write_text(SOLVER % ("step", "Nesterov"))
    told = prototxt.read(str(path)).settings
    assert (told["base_lr"], told["optimizer"], told["nesterov"]) == (0.01, "SGD", True)
    assert told["schedule.stepvalue"] == [150.0, 250.0]
    path.write_text("name: 'no solver'")
    assert prototxt.read(str(path)).settings == {}
    assert prototxt.is_solver("models/lenet_solver.prototxt")
    assert not prototxt.is_solver("train_val.prototxt")
