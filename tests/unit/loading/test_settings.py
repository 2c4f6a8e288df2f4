"""Hyperparameters as torch's own optimizers and schedulers save them."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from smd_analyze.loading.discovery import load_run
from smd_analyze.records.run import Setting

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=5e-4),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.1),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.1),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.1),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.1),
}
SCHEDULERS = {
    "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=5),
    "MultiStepLR": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, milestones=[5, 8]),
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=3),
    "ExponentialLR": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.9),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=20),
    "LinearLR": lambda o: torch.optim.lr_scheduler.LinearLR(o),
    "PolynomialLR": lambda o: torch.optim.lr_scheduler.PolynomialLR(o),
    "ReduceLROnPlateau": lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o),
}


def saved(folder: Path, make: object, schedule: object = None, **more: object) -> tuple[Setting, ...]:
    net = torch.nn.Linear(4, 3)
    optimizer = make(net.parameters())  # type: ignore[operator]
    net(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    made = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": 1, **more}
    if schedule is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler = schedule(optimizer)  # type: ignore[operator]
            scheduler.step(1.0) if isinstance(
                scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau
            ) else scheduler.step()
        made |= {"lr_scheduler": scheduler.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(made, folder / "ckpt.pt")
    return load_run(folder).checkpoints[0].settings


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_is_known_by_its_keys(tmp_path: Path, name: str) -> None:
    found = saved(tmp_path, OPTIMIZERS[name])
    assert [(s.text, s.kind) for s in found if s.name == "optimizer"] == [(name, "inferred")]


def test_sgd_in_force(tmp_path: Path) -> None:
    found = {s.name: s.value for s in saved(tmp_path, OPTIMIZERS["SGD"]) if s.kind == "in force"}
    assert found["learning_rate"] == 0.1
    assert (found["momentum"], found["dampening"], found["nesterov"], found["weight_decay"]) == (0.9, 0.1, 0.0, 5e-4)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_schedule_is_known_by_its_keys(tmp_path: Path, name: str) -> None:
    found = saved(tmp_path, OPTIMIZERS["SGD"], SCHEDULERS[name])
    assert [(s.text, s.kind) for s in found if s.name == "schedule"] == [(name, "inferred")]
    assert any(s.name == "schedule.last_epoch" for s in found)


def test_numbers_of_the_schedule(tmp_path: Path) -> None:
    found = {s.name: s for s in saved(tmp_path, OPTIMIZERS["SGD"], SCHEDULERS["CosineAnnealingLR"])}
    assert (found["schedule.T_max"].value, found["schedule.eta_min"].value) == (20, 0.01)
    found = {s.name: s for s in saved(tmp_path, OPTIMIZERS["SGD"], SCHEDULERS["MultiStepLR"])}
    assert json.loads(found["schedule.milestones"].text or "") == [5, 8]


def test_what_was_configured_stays_apart_from_what_is_in_force(tmp_path: Path) -> None:
    found = saved(tmp_path, OPTIMIZERS["AdamW"], args={"lr": 0.5, "weight_decay": 0.2, "opt": "adamw", "seed": 3})
    configured = {s.name: s.value if s.text is None else s.text for s in found if s.kind == "configured"}
    assert configured == {"learning_rate": 0.5, "weight_decay": 0.2, "optimizer": "adamw"}
    assert [s.source for s in found if s.name == "learning_rate" and s.kind == "configured"] == ["args.lr"]


@pytest.mark.parametrize(("in_force", "applies"), [(0.08, "last update"), (0.09, "next update")])
def test_logged_rates_of_the_trainer_state(tmp_path: Path, in_force: float, applies: str) -> None:
    """Trainers differ in which update a log entry belongs to: the rate that the optimizer holds at the save tells."""
    net = torch.nn.Linear(4, 3)
    for step in (2, 4):
        here = tmp_path / f"checkpoint-{step}"
        here.mkdir()
        save_file(net.state_dict(), here / "model.safetensors")
        torch.save(torch.optim.AdamW(net.parameters(), lr=in_force).state_dict(), here / "optimizer.pt")
        history = [{"step": s, "learning_rate": 0.09, "loss": 1.0} for s in range(1, step + 1)]
        (here / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": history}))
    run = load_run(tmp_path)
    (log,) = run.logs
    assert (log.at, log.values, log.applies) == ((1, 2, 3, 4), (0.09,) * 4, applies)
    logged = [s for s in run.checkpoints[1].settings if s.name == "logged_learning_rate"]
    assert [(s.value, s.kind, s.applies) for s in logged] == [(0.09, "logged", applies)]
