"""Small nets, really trained on scikit-learn's digits, with directions that feel no gradient, under every optimizer.

A `Case` names a net, an optimizer, a schedule of learning rates, and the clocks that must be there; `train` returns the
weights at every checkpoint, `predicted` what the formulas say of a clock, `write` leaves the run as files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional as F

from smd_analyze import decay_formulas

DEAD_PIXELS = (0, 32, 39)  # always black in the digits
STEPS, EVERY, DROP = 600, 30, 372  # the learning rate drops inside the 13th interval, from 360 to 390
Weights = dict[str, np.ndarray]


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """1797 images [n, 64] in 0…1, and their classes."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16.0, dtype=torch.float32), torch.tensor(y)


# The nets


class Mlp(nn.Module):
    """Class sums, sums before LayerNorm, dead pixels."""

    def __init__(self, classes: int = 10, width: int = 32):
        super().__init__()
        self.a, self.n1 = nn.Linear(64, width), nn.LayerNorm(width)
        self.b, self.n2 = nn.Linear(width, width), nn.LayerNorm(width)
        self.c = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(F.relu(self.n2(self.b(F.relu(self.n1(self.a(x)))))))


class Tokens(nn.Module):
    """Pixel values as tokens 0…16 of 32, positions 0…63 of 72; every reader of the stream is a LayerNorm."""

    def __init__(self, width: int = 24):
        super().__init__()
        self.token, self.position = nn.Embedding(32, width), nn.Embedding(72, width)
        self.n1, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 48), nn.Linear(48, width)
        self.n2, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.token((x * 16).long()) + self.position(torch.arange(64))
        z = z + self.down(F.gelu(self.up(self.n1(z))))
        return self.head(self.n2(z).mean(1))


class Standardized(nn.Module):
    """Weight standardization: the sum within each filter feels nothing."""

    def __init__(self):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(16, 1, 3, 3) * 0.3 + 0.1)
        self.w2 = nn.Parameter(torch.randn(16, 16, 3, 3) * 0.1 + 0.05)
        self.g1, self.g2, self.fc = nn.GroupNorm(4, 16), nn.GroupNorm(4, 16), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def standard(w: torch.Tensor) -> torch.Tensor:
            return (w - w.mean((1, 2, 3), True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)

        x = F.relu(self.g1(F.conv2d(x.view(-1, 1, 8, 8), standard(self.w1), stride=2, padding=1)))
        return self.fc(F.relu(self.g2(F.conv2d(x, standard(self.w2), stride=2, padding=1))).mean((2, 3)))


class Padded(nn.Module):
    """A bias before BatchNorm; at last a 3×3 kernel on a 1×1 map, of which only the middle tap sees data."""

    def __init__(self):
        super().__init__()
        self.c1, self.n1 = nn.Conv2d(1, 16, 3, stride=3), nn.BatchNorm2d(16)
        self.c2, self.fc = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.Linear(16, 10)
        nn.init.uniform_(self.c1.bias, -1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.n1(self.c1(x.view(-1, 1, 8, 8)))), 2)
        return self.fc(F.relu(self.c2(x)).flatten(1))


# The optimizers that PyTorch lacks


class Plain(torch.optim.Optimizer):
    """A rule with one buffer per tensor: `rule(w, g, buffer, η, λ)` works in place."""

    def __init__(self, parameters: Any, rule: Callable[..., None], lr: float, weight_decay: float):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.rule = rule

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    buffer = self.state[w].setdefault("buffer", torch.zeros_like(w))
                    self.rule(w, w.grad, buffer, group["lr"], group["weight_decay"])


def sgdw_rule(w: Any, g: Any, v: Any, eta: float, lam: float) -> None:
    """SGDW as in timm."""
    v.mul_(0.9).add_(g)
    w.mul_(1 - eta * lam).add_(v, alpha=-eta)


def lion_rule(w: Any, g: Any, m: Any, eta: float, lam: float) -> None:
    """Lion (Chen et al. 2023)."""
    w.mul_(1 - eta * lam).add_((0.9 * m + 0.1 * g).sign_(), alpha=-eta)
    m.mul_(0.99).add_(g, alpha=0.01)


def velocity_rule(w: Any, g: Any, v: Any, eta: float, lam: float) -> None:
    """SGD of Keras and Caffe, the learning rate inside the velocity."""
    v.mul_(0.9).add_(g + lam * w, alpha=-eta)
    w.add_(v)


class MuonAndAdamW:
    """Muon for the MLP's matrices but the last, AdamW with a tenth of the learning rate for the rest."""

    def __init__(self, net: nn.Module, lr: float, weight_decay: float):
        hidden = [p for n, p in net.named_parameters() if n in ("a.weight", "b.weight")]
        rest = [p for p in net.parameters() if not any(p is h for h in hidden)]
        self.optimizers = (
            torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay),
            torch.optim.AdamW(rest, lr=lr / 10, weight_decay=weight_decay),
        )
        self.param_groups = [g for o in self.optimizers for g in o.param_groups]

    def zero_grad(self) -> None:
        for each in self.optimizers:
            each.zero_grad()

    def step(self) -> None:
        for each in self.optimizers:
            each.step()


@dataclass(frozen=True)
class Rule:
    """An optimizer: how it is made of net, η, λ, and what a clock does under it."""

    make: Callable[[nn.Module, float, float], Any]
    decoupled: bool = False
    form: dict[str, Any] = field(default_factory=dict)  # momentum, nesterov, dampening, rate_in_velocity


def _sgd(**form: Any) -> Rule:
    return Rule(lambda net, lr, wd: torch.optim.SGD(net.parameters(), lr=lr, weight_decay=wd, **form), form=form)


def _plain(rule: Callable[..., None], **more: Any) -> Rule:
    return Rule(lambda net, lr, wd: Plain(net.parameters(), rule, lr, wd), **more)


def _torch(kind: Any, **more: Any) -> Rule:
    return Rule(lambda net, lr, wd: kind(net.parameters(), lr=lr, weight_decay=wd), **more)


RULES = {
    "SGD": _sgd(),
    "heavy ball": _sgd(momentum=0.9),
    "Nesterov": _sgd(momentum=0.9, nesterov=True),
    "dampening": _sgd(momentum=0.9, dampening=0.5),
    "velocity form": _plain(velocity_rule, form={"momentum": 0.9, "rate_in_velocity": True}),
    "SGDW": _plain(sgdw_rule, decoupled=True),
    "AdamW": _torch(torch.optim.AdamW, decoupled=True),
    "Lion": _plain(lion_rule, decoupled=True),
    "Muon + AdamW": Rule(MuonAndAdamW, decoupled=True),
    "Adam + L2": _torch(torch.optim.Adam),
}


@dataclass(frozen=True)
class Case:
    """One run: net, optimizer, η (as a function of the update's number), λ, and the clocks that must be found.

    `clocks`: (parameter, functional) as the `clocks` table names them. `loss(net, x, y)`; `clip` the gradient's norm.
    """

    net: Callable[[], nn.Module]
    rule: str
    rate: float
    decay: float
    clocks: tuple[tuple[str, str], ...] = ()
    steps: int = STEPS
    every: int = EVERY
    drop: int | None = DROP
    batch: int = 64
    clip: float | None = None
    loss: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    schedule: Callable[[np.ndarray], np.ndarray] | None = None  # share of the rate, of the updates' numbers

    def rates(self) -> np.ndarray:
        """η of every update, [steps]."""
        number = np.arange(self.steps)
        share = 1.0 if self.drop is None else np.where(number < self.drop, 1.0, 0.1)
        return self.rate * (share if self.schedule is None else self.schedule(number)) * np.ones(self.steps)


@dataclass(frozen=True)
class Trained:
    """The checkpoints of one run, and its losses."""

    case: Case
    steps: tuple[int, ...]
    weights: tuple[Weights, ...]
    losses: tuple[float, ...]


def smoothed(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with label smoothing."""
    return F.cross_entropy(net(x), y, label_smoothing=0.1)


def train(case: Case, seed: int = 0, every_update: Callable[[nn.Module, int], None] | None = None) -> Trained:
    """Train it, on one thread, and keep a copy of the weights (buffers left out) at every checkpoint."""
    torch.manual_seed(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, y = digits()
    net, loss_of = case.net(), case.loss or smoothed
    rule = RULES[case.rule]
    opt = rule.make(net, case.rate, case.decay)
    first = [g["lr"] for g in opt.param_groups]
    rates = case.rates() / case.rate
    order = torch.randint(0, len(x), (case.steps, case.batch))
    saved, losses, steps = [], [], []
    for t in range(case.steps + 1):
        if t % case.every == 0:
            saved.append({name: p.detach().numpy().copy() for name, p in net.named_parameters()})
            steps.append(t)
        if t == case.steps:
            break
        for group, rate in zip(opt.param_groups, first, strict=True):
            group["lr"] = rate * float(rates[t])
        loss = loss_of(net, x[order[t]], y[order[t]])
        opt.zero_grad()
        loss.backward()
        if case.clip:
            nn.utils.clip_grad_norm_(net.parameters(), case.clip)
        opt.step()
        if every_update:
            every_update(net, t)
        losses.append(loss.item())
    torch.set_num_threads(threads)
    return Trained(case, tuple(steps), tuple(saved), tuple(losses))


def predicted(case: Case, parameter: str = "") -> np.ndarray:
    """−ln(c_b/c_a) of a clock (of that tensor) over every interval between checkpoints, [K]."""
    rule = RULES[case.rule]
    edges = np.arange(0, case.steps + 1, case.every)
    eta = case.rates() * (0.1 if rule.make is MuonAndAdamW and parameter == "c.weight" else 1.0)
    if rule.decoupled:
        per_update = decay_formulas.decoupled_rate(eta * case.decay)
        return np.add.reduceat(per_update, edges[:-1])
    start = decay_formulas.fresh_buffer(case.decay, rule.form.get("momentum", 0.0), rule.form.get("dampening", 0.0))
    return decay_formulas.log_ratios(decay_formulas.step_matrices(eta, case.decay, **rule.form), edges, start)[0]


def vector(weights: Weights, parameter: str, functional: str) -> np.ndarray:
    """The clock's vector, float64; `functional` as in the `clocks` table: "sum over units", "unit 13", "input 7", …."""
    w, number = weights[parameter].astype(np.float64), functional.split()[-1]
    if functional == "whole":
        return w.ravel()
    if functional == "within unit":
        return w.reshape(len(w), -1).sum(1)
    if functional.startswith("sum over"):
        return w.sum(0 if functional.endswith("units") else int(number)).ravel()
    if functional.startswith("index"):
        return w.take(int(functional.split()[1]), int(number)).ravel()
    return w.take(int(number), 0 if functional.startswith("unit") else 1).ravel()


def shrinkage(trained: Trained, parameter: str, functional: str) -> np.ndarray:
    """−ln of the ratio of the vector's lengths over every interval, [K]."""
    lengths = [np.linalg.norm(vector(w, parameter, functional)) for w in trained.weights]
    return -np.diff(np.log(lengths))


def turning(trained: Trained, parameter: str, functional: str) -> np.ndarray:
    """1 − cos of the vector's turn over every interval, [K]."""
    vectors = [vector(w, parameter, functional) for w in trained.weights]
    units = [v / np.linalg.norm(v) for v in vectors]
    return np.array([np.sum((a - b) ** 2) / 2 for a, b in zip(units, units[1:], strict=False)])


def write(trained: Trained, folder: Path, dtype: str = "float32") -> Path:
    """The run as a folder of safetensors, weights only; `dtype` also "float16" or "bfloat16"."""
    folder.mkdir(parents=True, exist_ok=True)
    for step, weights in zip(trained.steps, trained.weights, strict=True):
        path = folder / f"step_{step}.safetensors"
        if dtype == "float32":
            save_file(weights, path)
        else:
            from safetensors.torch import save_file as save_torch

            save_torch({name: torch.from_numpy(w).to(getattr(torch, dtype)) for name, w in weights.items()}, path)
    return folder


SUMS = (("a.weight", "sum over units"), ("b.weight", "sum over units"), ("c.weight", "sum over units"))
DEAD = tuple(("a.weight", f"input {i}") for i in DEAD_PIXELS)
UNUSED = tuple(("token.weight", f"unit {i}") for i in range(17, 32)) + tuple(
    ("position.weight", f"unit {i}") for i in range(64, 72)
)
STREAM = (("token.weight", "within unit"), ("position.weight", "within unit"), ("down.weight", "sum over units"))
FILTERS = (("w1", "within unit"), ("w2", "within unit"))
TAPS = tuple(("c2.weight", f"index {i} of axis {axis}") for axis in (2, 3) for i in (0, 2))
HEAD = (("head.weight", "sum over units"),)


def two_classes() -> nn.Module:
    return Mlp(classes=2)


def parity(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(net(x), y % 2)


CASES = {
    "MLP, SGD": Case(Mlp, "SGD", 0.1, 4e-3, SUMS + DEAD),
    "MLP, heavy ball, clipped": Case(Mlp, "heavy ball", 0.05, 4e-3, SUMS + DEAD, clip=1.0),
    "MLP, dampening": Case(Mlp, "dampening", 0.05, 4e-3, SUMS + DEAD),
    "MLP, velocity form": Case(Mlp, "velocity form", 0.05, 4e-3, SUMS + DEAD),
    "MLP, SGDW": Case(Mlp, "SGDW", 0.02, 0.05, SUMS + DEAD),
    "MLP, Lion": Case(Mlp, "Lion", 3e-4, 1.0, DEAD),
    "tokens, Nesterov": Case(Tokens, "Nesterov", 0.05, 4e-3, UNUSED + STREAM + HEAD, batch=16),
    "tokens, AdamW": Case(Tokens, "AdamW", 3e-3, 0.1, UNUSED, batch=16),
    "MLP, Muon + AdamW": Case(Mlp, "Muon + AdamW", 0.02, 0.05, DEAD),
    "standardized, heavy ball": Case(Standardized, "heavy ball", 0.05, 4e-3, FILTERS),
    "padded, heavy ball": Case(Padded, "heavy ball", 0.02, 4e-3, (*TAPS, ("c1.bias", "whole"))),
    "padded, AdamW": Case(Padded, "AdamW", 3e-3, 0.1, TAPS),
    "two classes, AdamW": Case(two_classes, "AdamW", 3e-3, 0.1, (*DEAD, ("c.weight", "sum over units")), loss=parity),
    "MLP, Adam + L2": Case(Mlp, "Adam + L2", 1e-3, 1e-2),
}  # fmt: skip


@cache
def run(name: str) -> Trained:
    """One of CASES, trained once a session."""
    return train(CASES[name])
