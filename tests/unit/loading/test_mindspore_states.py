"""What MindSpore's optimizers clone beside the weights: moments by name, rates per group, and no weight lost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from smd_analyze.loading.discovery import load_run
from smd_analyze.records.run import Run

WEIGHTS = {"conv.weight": np.arange(54, dtype="f4").reshape(2, 3, 3, 3), "stat.weight": np.ones((3, 2), "f4")}


def read(folder: Path, more: dict[str, Any]) -> Run:
    for step in (5, 10):
        counters = {"step_num": np.int32(step), "epoch_num": np.int32(step // 5)}
        arrays = {n: np.asarray(a) for n, a in {**WEIGHTS, **counters, **more}.items()}
        save_file(arrays, folder / f"net-{step // 5}_5.safetensors")
    return load_run(folder)


def clones(*prefixes: str) -> dict[str, Any]:
    return {f"{p}.{n}": a + i for i, p in enumerate(prefixes, 1) for n, a in WEIGHTS.items()}


@pytest.mark.parametrize(
    ("prefixes", "kind", "states"),
    [
        (("moments",), "SGD", ("momentum_buffer",)),
        (("accum", "stat"), "SGD", ("momentum_buffer",)),
        (("moment1", "moment2"), "Adam", ("exp_avg", "exp_avg_sq")),
        (("adam_m", "adam_v"), "AdamW", ("exp_avg", "exp_avg_sq")),
        (("mean_square", "moment"), "RMSprop", ()),
    ],
)
def test_states_by_name(tmp_path: Path, prefixes: tuple[str, ...], kind: str, states: tuple[str, ...]) -> None:
    run = read(tmp_path, clones(*prefixes))
    assert [c.step for c in run.checkpoints] == [5, 10]
    last = run.checkpoints[-1]
    assert set(last.parameters) == set(WEIGHTS)
    assert {s.text for s in last.settings if s.name == "optimizer"} == {kind}
    for number, state in enumerate(states, 1):
        for name, array in WEIGHTS.items():
            np.testing.assert_array_equal(last.optimizer_state[name][state].read(), array + number)


def test_a_layer_that_is_called_like_a_state_stays_a_weight(tmp_path: Path) -> None:
    run = read(tmp_path, {"linear.weight": np.ones((4, 4), "f4")})
    assert set(run.checkpoints[0].parameters) == {*WEIGHTS, "linear.weight"}
    assert not run.checkpoints[0].optimizer_state


def test_learning_rates_per_group(tmp_path: Path) -> None:
    rates = {"learning_rate_group_0": np.array([0.1], "f4"), "learning_rate_group_1": np.array(0.02, "f4")}
    last = read(tmp_path, {**rates, **clones("moments")}).checkpoints[-1]
    found = {s.parameter_group: s.value for s in last.settings if s.name == "learning_rate" and s.kind == "in force"}
    assert found == {"0": 0.1, "1": 0.02}
    assert set(last.parameters) == set(WEIGHTS)
