"""Frozen batch normalization is seen in the checkpoints' own statistics, by names and on graphs alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from invariance_runs import status_of
from torch import nn

from smd_analyze.invariance.grouping import find_groups
from smd_analyze.records.run import Checkpoint, LazyTensor, Run

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Residual(nn.Module):
    """conv1 → bn1 → relu → conv2 → bn2, and the mean of its pixels as output."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(torch.relu(self.bn2(self.conv2(x))).mean((2, 3)))


def lazy(array):
    return LazyTensor(array.shape, str(array.dtype), lambda: array.copy())


def saved(step, state, prefix=""):
    tensors = {prefix + n: lazy(t) for n, t in state.items()}
    buffers = {n: t for n, t in tensors.items() if n.split(".")[-1] in STATISTICS}
    parameters = {n: t for n, t in tensors.items() if n not in buffers}
    return Checkpoint(step, f"{step}.pt", "torch", "plain", parameters, buffers=buffers)


def run_of_states(states, prefix=""):
    checkpoints = tuple(saved(100 * i, s, prefix) for i, s in enumerate(states))
    return Run("run", checkpoints, "file name", "optimizer steps")


def states(count, frozen, until=0):
    """States whose weights move; `frozen` norms' statistics move only from checkpoint 0 to `until`."""
    torch.manual_seed(0)
    model = Residual()
    found = []
    for number in range(count):
        state = {n: t.numpy().copy() for n, t in model.state_dict().items()}
        for name, array in state.items():
            moves = not any(name.startswith(f) for f in frozen) or not name.endswith(STATISTICS)
            state[name] = array + array.dtype.type(number if moves else min(number, until))
        found.append(state)
    return found


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("model", [None, Residual])
def test_a_frozen_norm_divides_nothing_out(model, prefix):
    run = run_of_states(states(4, ["bn1"]), prefix)
    inputs = (torch.ones(2, 3, 8, 8),) if model else None
    groups = find_groups(run, model, inputs)
    assert status_of(groups, f"{prefix}conv1.weight") == ("not invariant", "")
    assert status_of(groups, f"{prefix}conv1.bias") == ("not invariant", "")
    assert status_of(groups, f"{prefix}conv2.weight") == ("invariant", "unit")
    (row,) = [r for r in groups.parameters if r.parameter == f"{prefix}conv1.weight"]
    assert "bn1" in row.reason
    assert "frozen" in row.reason
    (finding,) = [f for f in groups.findings if f.code == "frozen-norms"]
    assert "over the whole run" in finding.message
    assert finding.severity == "warning"
    live = find_groups(run_of_states(states(4, []), prefix), model, inputs)
    assert status_of(live, f"{prefix}conv1.weight") == ("invariant", "unit")
    assert status_of(live, f"{prefix}conv1.bias") == ("dead", "")
    assert not [f for f in live.findings if "frozen" in f.code]


def test_frozen_from_some_checkpoint_on_is_said_from_when():
    run = run_of_states(states(9, ["bn1", "bn2"], until=5))
    groups = find_groups(run)
    (finding,) = [f for f in groups.findings if f.code == "frozen-norms"]
    assert "2 batch norms" in finding.message
    assert "from step 500 on" in finding.message
    assert "--steps :500" in finding.remedy
    reason = next(r.reason for r in groups.parameters if r.parameter == "conv1.weight")
    assert "but not from step 500 on" in reason


def test_frozen_at_the_start_is_said_up_to_when():
    found = states(9, ["bn2"], until=9)
    for number, state in enumerate(found):
        for name in (n for n in state if n.startswith("bn2.") and n.endswith(STATISTICS)):
            state[name] = found[max(number, 3)][name]
    groups = find_groups(run_of_states(found))
    assert status_of(groups, "conv1.weight") == ("invariant", "unit")
    assert status_of(groups, "conv2.weight") == ("not invariant", "")
    (finding,) = [f for f in groups.findings if f.code == "frozen-norms"]
    assert "up to step 300" in finding.message
    assert "--steps 300:" in finding.remedy


def test_equal_checkpoints_tell_nothing():
    state = states(1, [])[0]
    groups = find_groups(run_of_states([state, state, state]))
    assert status_of(groups, "conv1.weight") == ("invariant", "unit")
    assert [f.code for f in groups.findings] == ["frozen-norms-unknown"]


def test_a_last_checkpoint_that_is_a_copy_does_not_look_frozen():
    found = states(3, [])
    groups = find_groups(run_of_states([*found, found[-1]]))
    assert status_of(groups, "conv1.weight") == ("invariant", "unit")
    assert groups.findings == ()


def test_a_counter_that_runs_shows_training_mode():
    found = states(3, ["bn1"])
    for number, state in enumerate(found):
        state["bn1.num_batches_tracked"] = state["bn1.num_batches_tracked"] + number
    assert status_of(find_groups(run_of_states(found)), "conv1.weight") == ("invariant", "unit")


def test_only_statistics_and_a_few_small_weights_are_read():
    run = run_of_states(states(6, ["bn1", "bn2"]))

    def read() -> np.ndarray:
        raise AssertionError("a large weight must not be read")

    def large(tensor):
        return replace(tensor, shape=(4096, 4096), read=read) if len(tensor.shape) == 4 else tensor

    checkpoints = tuple(replace(c, parameters={n: large(t) for n, t in c.parameters.items()}) for c in run.checkpoints)
    groups = find_groups(replace(run, checkpoints=checkpoints))
    assert [f.code for f in groups.findings] == ["frozen-norms"]


@pytest.mark.parametrize(
    ("mean", "variance"),
    [
        ("bn1.running_mean", "bn1.running_var"),
        ("bn1/moving_mean:0", "bn1/moving_variance:0"),
        ("bn1._mean", "bn1._variance"),
        ("bn1.avg_mean", "bn1.avg_var"),
    ],
)
def test_statistics_of_any_framework(mean, variance):
    sign = "/" if "/" in mean else "."
    found = [
        Checkpoint(
            step, f"{step}", "x", "plain",
            {f"conv1{sign}weight": lazy(np.full((4, 3, 3, 3), step, np.float32)), f"bn1{sign}gamma": lazy(np.ones(4))},
            buffers={mean: lazy(np.ones(4, np.float32)), variance: lazy(np.ones(4, np.float32))},
        )
        for step in (1, 2, 3)
    ]  # fmt: skip
    groups = find_groups(Run("run", tuple(found), "name", "optimizer steps"))
    assert status_of(groups, f"conv1{sign}weight") == ("not invariant", "")
    assert [f.code for f in groups.findings] == ["frozen-norms"]
