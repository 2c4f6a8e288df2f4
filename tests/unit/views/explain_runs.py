"""Small runs of real optimizers on random tangent gradients, saved and analysed, to explain their layers."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import smd_analyze as smd
from smd_analyze.records.report import Report

UNITS, STEPS, EVERY, LAYER = 8, 1000, 100, "conv1"


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, as it is published."""

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                update = (b1 * m + (1 - b1) * p.grad).sign()
                m.mul_(b2).add_(p.grad, alpha=1 - b2)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


class SGDW(torch.optim.Optimizer):
    """SGD with momentum and decoupled decay."""

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                v = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                v.mul_(group["momentum"]).add_(p.grad)
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(v, alpha=-group["lr"])


def sgd(params: Any, lr: float = 0.05, momentum: float = 0.9, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr, momentum, weight_decay=0.01, **more)


MAKE = {
    "plain SGD": lambda p: sgd(p, momentum=0.0),
    "heavy ball": sgd,
    "heavy ball, drop": sgd,
    "dampening": lambda p: sgd(p, lr=0.2, dampening=0.5),
    "Nesterov": lambda p: sgd(p, lr=0.02, nesterov=True),
    "SGDW": lambda p: SGDW(p, 0.05, 0.9, 0.04),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.005, (0.9, 0.95), weight_decay=0.4),
    "Adam + L2": lambda p: torch.optim.Adam(p, 0.002, weight_decay=0.02),
    "Lion": lambda p: Lion(p, 0.001, (0.9, 0.95), 1.0),
    "Muon": lambda p: torch.optim.Muon(p, 0.02, weight_decay=0.1),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "SGDW": {"optimizer": "sgdw", "decoupled": True},
    "Lion": {"optimizer": "lion"},
    "decay alone": {"decay_rule": "independent", "weight_decay": 2e-3},
    "AdamC": {"decay_rule": "adamc"},
    "cautious": {"decay_rule": "cautious"},
    "velocity": {"rate_in_velocity": True},
}
OF = {"decay alone": "AdamW", "AdamC": "AdamW", "cautious": "AdamW", "velocity": "heavy ball, drop"}
"""Runs that are read with other settings than their own."""
WITHOUT_STATE = ("weights only",)


@lru_cache(maxsize=1)
def folder() -> Path:
    """Where the runs of this session lie; gone with it."""
    path = Path(tempfile.mkdtemp(prefix="explained_runs"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@lru_cache
def made(name: str) -> Path:
    """The checkpoints of one optimizer, or of heavy ball without its state."""
    path = folder() / name.replace(" ", "_")
    if path.exists():
        return path
    path.mkdir()
    random = torch.Generator().manual_seed(3)
    weights_only = name in WITHOUT_STATE
    w = torch.nn.Parameter(torch.randn((UNITS, 24) if name == "Muon" else (UNITS, 6, 2, 2), generator=random))
    head = torch.nn.Parameter(0.3 * torch.randn(5, 24, generator=random))
    optimizer = MAKE.get(name, sgd)([w, head])
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            torch.save(_checkpoint(w, head, optimizer, step, weights_only), path / f"step_{step:06d}.pt")
        if step == 400 and "drop" in name:
            optimizer.param_groups[0]["lr"] /= 5
        _gradient(w, head, random)
        optimizer.step()
    return path


def _gradient(w: torch.nn.Parameter, head: torch.nn.Parameter, random: torch.Generator) -> None:
    """Tangent to each unit and as long as 1/‖w‖; the head's, of a softmax, sums to zero over its rows."""
    flat = w.detach().flatten(1)
    g = torch.randn(flat.shape, generator=random)
    n = (flat * flat).sum(1, keepdim=True)
    w.grad = ((g - (g * flat).sum(1, keepdim=True) / n * flat) / n.sqrt() / 5).reshape(w.shape)
    g = 0.01 * torch.randn(head.shape, generator=random)
    head.grad = g - g.mean(0, keepdim=True)


def _checkpoint(w: Any, head: Any, optimizer: Any, step: int, weights_only: bool) -> dict[str, Any]:
    model = {f"{LAYER}.weight": w.detach().clone()}
    model |= {f"bn1.{key}": torch.ones(UNITS) for key in ("weight", "bias", "running_mean", "running_var")}
    model |= {"bn1.num_batches_tracked": torch.tensor(step), "fc.weight": head.detach().clone()}
    return model if weights_only else {"model": model, "optimizer": optimizer.state_dict(), "step": step}


@lru_cache
def report_of(name: str) -> Report:
    """The analysed run; `name` is one of MAKE, of OF, or of WITHOUT_STATE."""
    found = smd.analyze(made(OF.get(name, name)), settings=SETTINGS.get(name))
    assert found.groups.filter(found.groups["group"] == LAYER).height == 1
    return found
