"""Several optimizers, hyperparameters in tensors, states without names: what torch writes, read back."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from smd_analyze.loading.discovery import load_run
from smd_analyze.records.run import Checkpoint


def net(width: int = 4) -> nn.Sequential:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def trained(model: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
    model(torch.randn(8, 3)).square().sum().backward()
    for optimizer in optimizers:
        optimizer.step()


def saved(folder: Path, **tree: Any) -> Checkpoint:
    torch.save({**tree, "step": 1}, folder / "step_1.pt")
    return load_run(folder).checkpoints[0]


def rate(checkpoint: Checkpoint, name: str = "learning_rate") -> dict[str, float | None]:
    return {s.parameter_group: s.value for s in checkpoint.settings if s.name == name and s.kind == "in force"}


@pytest.mark.parametrize("shape", ["list", "dict"])
def test_two_optimizers_that_share_a_model_are_both_read(tmp_path: Path, shape: str) -> None:
    model = net()
    body = torch.optim.SGD([*model[0].parameters(), *model[1].parameters()], lr=0.1, momentum=0.9)
    head = torch.optim.AdamW(model[2].parameters(), lr=0.01)
    trained(model, body, head)
    states = [body.state_dict(), head.state_dict()]
    found = saved(
        tmp_path,
        model=model.state_dict(),
        optimizer=states if shape == "list" else dict(zip("ab", states, strict=True)),
    )
    assert len(found.parameters) == 6
    assert rate(found) == {"optimizer0/0": 0.1, "optimizer1/0": 0.01}
    run = load_run(tmp_path)
    assert run.parameter_groups["optimizer1/0"] == ("2.weight", "2.bias")
    mean = found.optimizer_state["2.weight"]["exp_avg"].load()
    assert torch.equal(mean, head.state[model.get_parameter("2.weight")]["exp_avg"])
    assert torch.equal(
        found.optimizer_state["1.bias"]["momentum_buffer"].load(),
        body.state[model.get_parameter("1.bias")]["momentum_buffer"],
    )


@pytest.mark.parametrize("first", ["optimizer_g", "optimizer_d"])
@pytest.mark.parametrize("width", [4, 5])
def test_a_generator_gets_its_own_optimizer_whatever_the_order(tmp_path: Path, first: str, width: int) -> None:
    generator, critic = net(4), net(width)
    own = torch.optim.SGD(generator.parameters(), lr=0.1, momentum=0.9)
    other = torch.optim.SGD(critic.parameters(), lr=0.7, momentum=0.9)
    trained(generator, own)
    trained(critic, other)
    states = {"optimizer_g": own.state_dict(), "optimizer_d": other.state_dict()}
    if first == "optimizer_d":
        states = dict(reversed(states.items()))
    found = saved(tmp_path, **states, discriminator=critic.state_dict(), generator=generator.state_dict())
    assert rate(found) == {"0": 0.1}
    wanted = own.state[generator.get_parameter("0.weight")]["momentum_buffer"]
    assert torch.equal(found.optimizer_state["0.weight"]["momentum_buffer"].load(), wanted)
    note = next(f for f in load_run(tmp_path).findings if f.code == "several-optimizers")
    assert note.severity == ("warning" if width == 4 else "note")  # two of one shape: the name decides, and it is said


def test_a_learning_rate_in_a_tensor_is_read_in_each_file(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1), betas=(0.8, 0.99))
    for step in (1, 2):
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1 / step)
        trained(model, optimizer)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(state, tmp_path / f"step_{step}.pt")
    one, two = load_run(tmp_path).checkpoints
    assert rate(one) == {"0": 0.1}
    assert rate(two) == {"0": 0.05}
    assert rate(one, "beta1") == {"0": 0.8}


def test_an_old_adam_counts_its_steps_in_a_plain_number(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer)
    state = optimizer.state_dict()
    for entry in state["state"].values():
        entry["step"] = 7
    found = saved(tmp_path, model=model.state_dict(), optimizer=state)
    assert float(found.optimizer_state["0.weight"]["step"].read().reshape(-1)[0]) == 7


@pytest.mark.parametrize("named", [False, True])
def test_without_order_only_states_that_can_be_told_apart_are_matched(tmp_path: Path, named: bool) -> None:
    model = net()
    if named:  # then nothing tells which of the modules was registered first
        model = nn.Sequential(OrderedDict(zip(("z", "y", "x"), model, strict=True)))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": decayed}, {"params": others, "weight_decay": 0.0}])
    trained(model, optimizer)
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    save_file(dict(reversed(model.state_dict().items())), folder / "model.safetensors")
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1}))
    run = load_run(tmp_path)
    found = run.checkpoints[0].optimizer_state
    # z.bias, y.weight, y.bias are all of four elements
    assert set(found) == ({"z.weight", "x.weight", "x.bias"} if named else {n for n, _ in model.named_parameters()})
    for name in found:
        wanted = optimizer.state[model.get_parameter(name)]["exp_avg_sq"]
        assert torch.equal(found[name]["exp_avg_sq"].load(), wanted)
    if named:
        assert [f.code for f in run.findings] == ["optimizer-state-unmatched"]
        assert "3 optimizer states were matched" in run.findings[0].message
        assert "; 3 share" in run.findings[0].message
    else:
        assert [f.code for f in run.findings] == ["optimizer-state-matched"]


def test_groups_in_reverse_order_are_found_by_their_shapes_and_not_without(tmp_path: Path) -> None:
    model = net()
    for momentum, known in ((0.9, True), (0.0, False)):
        layers = [{"params": list(model[i].parameters()), "lr": 0.1 * i + 0.1} for i in (2, 1, 0)]
        optimizer = torch.optim.SGD(layers, lr=0.1, momentum=momentum)
        trained(model, optimizer)
        saved(tmp_path, model=model.state_dict(), optimizer=optimizer.state_dict())
        groups = load_run(tmp_path).parameter_groups
        assert (groups.get("2") == ("0.weight", "0.bias")) == known
        assert bool(groups) == known
