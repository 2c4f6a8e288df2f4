"""Folders that hold several models and one training state: accelerate, diffusers."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from smd_analyze.loading.discovery import load_run


def net(width: int) -> nn.Sequential:
    torch.manual_seed(width)
    return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))


def optimizer_of(model: nn.Module, steps: int) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
    return optimizer


def test_accelerates_second_model_is_a_companion_and_not_a_checkpoint(tmp_path: Path) -> None:
    truth = (net(6), optimizer_of(net(6), 0))
    for step in (1, 2):
        folder = tmp_path / f"step_{step}"
        folder.mkdir()
        for number, width in (("", 6), ("_1", 5)):
            model = net(width)
            optimizer = optimizer_of(model, step)
            save_file(model.state_dict(), folder / f"model{number}.safetensors")
            torch.save(optimizer.state_dict(), folder / f"optimizer{number}.bin")
            if not number:
                truth = model, optimizer
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [1, 2]
    model, optimizer = truth
    last = run.checkpoints[-1]
    for name, parameter in model.named_parameters():
        assert torch.equal(last.parameters[name].load(), parameter.detach())
        assert torch.equal(last.optimizer_state[name]["exp_avg"].load(), optimizer.state[parameter]["exp_avg"])
    assert {f.code for f in run.findings} == {"several-models", "several-optimizers", "optimizer-state-matched"}


def test_diffusers_keeps_the_model_and_its_average_in_folders_of_their_own(tmp_path: Path) -> None:
    model = net(6)
    for step in (10, 20):
        folder = tmp_path / f"checkpoint-{step}"
        model, average = net(6), net(6)
        nn.init.ones_(average.get_parameter("0.weight"))
        optimizer = optimizer_of(model, step)
        for name, one in (("unet", model), ("unet_ema", average)):
            (folder / name).mkdir(parents=True)
            save_file(one.state_dict(), folder / name / "diffusion_pytorch_model.safetensors")
            (folder / name / "config.json").write_text('{"_class_name": "UNet2DModel"}')
        torch.save(optimizer.state_dict(), folder / "optimizer.bin")
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [10, 20]
    last = run.checkpoints[-1]
    assert torch.equal(last.parameters["0.weight"].load(), model.get_parameter("0.weight").detach())
    assert torch.equal(last.variants["ema"]["0.weight"].load(), torch.ones(6, 3))
    assert len(last.optimizer_state) == 4
    assert len(last.identity) == 3
    assert "another-sequence" not in {f.code for f in run.findings}


def test_numbered_models_without_a_training_state_are_a_sequence(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_file(net(4).state_dict(), tmp_path / f"model_{step}.safetensors")
    assert len(load_run(tmp_path).checkpoints) == 3
