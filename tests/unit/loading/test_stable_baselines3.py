"""Stable-Baselines3's zips, in the layout of its save_to_zip_file."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from smd_analyze.errors import NothingToAnalyse
from smd_analyze.loading.discovery import load_run

DATA = {
    "policy_class": {":type:": "<class 'abc.ABCMeta'>", ":serialized:": "gASVMAAAAAAAAACMH="},
    "num_timesteps": 500, "_n_updates": 99, "learning_rate": 0.0007, "gamma": 0.99, "tau": 0.005,
    "policy_kwargs": {":type:": "<class 'dict'>", "optimizer_class": "<class 'torch.optim.adam.Adam'>"},
}  # fmt: skip


class Policy(nn.Module):
    """SAC's modules: an actor, a critic and the critic's slow copy."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic, self.critic_target = nn.Linear(3, 2), nn.Linear(5, 1), nn.Linear(5, 1)


def saved(thing: Any) -> bytes:
    out = io.BytesIO()
    torch.save(thing, out)
    return out.getvalue()


def trained(parameters: list[nn.Parameter], steps: int, lr: float) -> torch.optim.Adam:
    optimizer = torch.optim.Adam(parameters, lr=lr)
    for _ in range(steps):
        for p in parameters:
            p.grad = torch.randn_like(p)
        optimizer.step()
    return optimizer


def write(
    path: Path, steps: int, method: int = zipfile.ZIP_STORED
) -> tuple[Policy, dict[str, torch.optim.Adam], torch.Tensor]:
    torch.manual_seed(steps)
    policy, entropy = Policy(), nn.Parameter(torch.randn(1))
    optimizers = {
        "ent_coef_optimizer": trained([entropy], steps, 0.03),
        "critic.optimizer": trained(list(policy.critic.parameters()), steps, 0.02),
        "actor.optimizer": trained(list(policy.actor.parameters()), steps, 0.01),
    }
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("data", json.dumps({**DATA, "_n_updates": steps}))
        archive.writestr("pytorch_variables.pth", saved({"log_ent_coef": entropy.detach()}))
        archive.writestr("policy.pth", saved(policy.state_dict()))
        for name, optimizer in optimizers.items():
            archive.writestr(f"{name}.pth", saved(optimizer.state_dict()))
        archive.writestr("_stable_baselines3_version", "2.9.2")
    return policy, optimizers, entropy.detach()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_policy_optimizers_and_slow_copy(tmp_path: Path, method: int) -> None:
    for steps in (3, 7):
        policy, optimizers, entropy = write(tmp_path / f"rl_model_{steps * 50}_steps.zip", steps, method)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [3, 7]  # not the environment's 150 and 350
    last = run.checkpoints[-1]
    assert last.framework == "stable-baselines3"
    live = [n for n, _ in policy.named_parameters() if "target" not in n]
    assert list(last.parameters) == [*live, "log_ent_coef"]
    for name in live:
        assert torch.equal(last.parameters[name].load(), policy.get_parameter(name).detach())
    assert torch.equal(last.parameters["log_ent_coef"].load(), entropy)
    assert torch.equal(last.variants["ema"]["critic.weight"].load(), policy.critic_target.weight.detach())
    for name in live:
        optimizer = optimizers[f"{name.partition('.')[0]}.optimizer"]
        wanted = optimizer.state[policy.get_parameter(name)]["exp_avg_sq"]
        assert torch.equal(last.optimizer_state[name]["exp_avg_sq"].load(), wanted)
    rates = {s.parameter_group: s.value for s in last.settings if s.name == "learning_rate" and s.kind == "in force"}
    assert rates == {"optimizer0/0": 0.01, "optimizer1/0": 0.02, "optimizer2/0": 0.03}
    assert run.parameter_groups["optimizer1/0"] == ("critic.weight", "critic.bias")
    assert [s.text for s in last.settings if s.name == "optimizer" and s.kind == "configured"] == ["Adam"]


def test_what_was_pickled_into_the_json_is_not_looked_at(tmp_path: Path) -> None:
    write(tmp_path / "a.zip", 1)
    assert "gASV" not in repr(load_run(tmp_path).checkpoints[0].settings)


def test_a_zip_bomb_is_refused_and_a_cut_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smd_analyze.loading.formats.stable_baselines3.LONGEST_MEMBER", 1000)
    write(tmp_path / "bomb_1.zip", 1, zipfile.ZIP_DEFLATED)
    with pytest.raises(NothingToAnalyse, match="refused: unpacks to more than 1000 bytes"):
        load_run(tmp_path)
    write(tmp_path / "cut_1.zip", 1)
    whole = (tmp_path / "cut_1.zip").read_bytes()
    (tmp_path / "cut_1.zip").write_bytes(whole[:-100])
    with pytest.raises(NothingToAnalyse, match="cut_1.zip: .*zip directory"):
        load_run(tmp_path)
