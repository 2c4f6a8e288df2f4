"""Random programs over the operations that the calculus knows, for comparison with their numbers.

A program reads [batch 3, length 4, width 6] and holds a list of values; each step makes a new one from one or two of
the last three.
"""

import random

import torch
import torch.nn.functional as F
from cases import Case
from torch import nn

from smd_analyze.invariance.tracing import _recorded, quiet, trace

BATCH, LENGTH, WIDTH = 3, 4, 6
MOST_CHANNELS = 12
UNARY = {
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "abs": torch.abs,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "relu6": F.relu6,
    "clamp": lambda x: x.clamp(-1, 1),
    "square": torch.square,
    "softmax": lambda x: F.softmax(x, -1),
    "softmax over places": lambda x: F.softmax(x, 1),
    "normalize": lambda x: F.normalize(x, dim=-1),
    "centre channels": lambda x: x - x.mean(-1, keepdim=True),
    "centre places": lambda x: x - x.mean(1, keepdim=True),
    "standardize": lambda x: (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True) + 1e-6),
    "root mean square": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "norm of two heads": lambda x: F.normalize(x.unflatten(-1, (2, -1)), dim=-1).flatten(2),
    "largest place": lambda x: x.max(1, keepdim=True)[0].expand_as(x),
    "running sum": lambda x: x.cumsum(1),
    "flip": lambda x: x.flip(-1),
    "roll": lambda x: x.roll(1, 1),
    "triangle": torch.tril,
    "gated by its mean": lambda x: x * torch.sigmoid(x.mean(1, keepdim=True)),
    "pool": lambda x: F.avg_pool1d(x.transpose(1, 2), 3, 1, 1).transpose(1, 2),
    "dropout": lambda x: F.dropout(x, 0.3),
    "detached norm": lambda x: x / x.norm(dim=-1, keepdim=True).detach(),
}
BINARY = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": lambda x, y: x / (y.abs().sum(-1, keepdim=True) + 1e-6),
    "larger": torch.maximum,
    "gate": lambda x, y: x * torch.sigmoid(y),
    "choose": lambda x, y: torch.where(y > 0, x, y),
}
HALVING = {
    "glu": lambda x: F.glu(x, -1),
    "halves multiplied": lambda x: x[..., : x.shape[-1] // 2] * x[..., x.shape[-1] // 2 :],
    "halves added": lambda x: x[..., : x.shape[-1] // 2] + x[..., x.shape[-1] // 2 :],
}
WITH_PARAMETERS = (
    "linear", "linear", "linear", "linear", "batch norm", "layer norm", "rms norm", "group norm", "instance norm",
    "conv", "depthwise", "gain", "bias", "scalar bias", "attention", "normed attention", "weight norm", "standardized",
    "shared", "prelu",
)  # fmt: skip


class Along(nn.Module):
    """A module that wants channels before places."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x.transpose(1, 2)).transpose(1, 2)


class Parametrized(nn.Module):
    """A step with parameters of its own."""

    def __init__(self, kind, *shapes):
        super().__init__()
        self.kind = kind
        self.p = nn.ParameterList(nn.Parameter(0.7 * torch.randn(s)) for s in shapes)

    def forward(self, x):
        p = self.p
        if self.kind == "gain":
            return x * p[0]
        if "bias" in self.kind:
            return x + p[0]
        if self.kind == "weight norm":
            return x @ F.normalize(p[0], dim=-1).T
        if self.kind == "standardized":
            w = p[0] - p[0].mean(1, keepdim=True)
            return x @ (w / torch.sqrt(p[0].var(1, keepdim=True) + 1e-6)).T
        q, k, v = F.linear(x, p[0], p[1] if len(p) > 1 else None).chunk(3, -1)
        if self.kind == "normed attention":
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return F.softmax(q @ k.transpose(1, 2), -1) @ v


class Program(nn.Module):
    """The program of a seed; `steps` tells it in words."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)
        torch.manual_seed(seed)
        self.steps, self.layers, self.widths = [], nn.ModuleList(), [WIDTH]
        for _ in range(self.random.randint(3, 10)):
            self._step()
        self.head = nn.Linear(self.widths[-1], 3)
        del self.random

    def _step(self):
        pick = self.random
        source = pick.randrange(max(0, len(self.widths) - 3), len(self.widths))
        width = self.widths[source]
        kind = pick.choice([*UNARY, *BINARY, *HALVING, *WITH_PARAMETERS, *WITH_PARAMETERS, "cat"])
        other, layer, out = -1, -1, width
        if kind in BINARY:
            same = [i for i, w in enumerate(self.widths) if w == width and i != source]
            if not same:
                return
            other = pick.choice(same)
        elif kind in HALVING:
            if width % 2:
                return
            out = width // 2
        elif kind == "cat":
            other = pick.randrange(len(self.widths))
            out = width + self.widths[other]
            if out > MOST_CHANNELS:
                return
        elif kind in WITH_PARAMETERS:
            made = self._layer(kind, width)
            if made is None:
                return
            layer, out = made
        elif kind == "norm of two heads" and width % 2:
            return
        self.steps.append((kind, source, other, layer))
        self.widths.append(out)

    def _layer(self, kind, width):
        pick, bias = self.random, self.random.random() < 0.5
        wide = pick.choice([4, 6, 8])
        if kind == "shared":
            known = [(i, m.out_features) for i, m in enumerate(self.layers)
                     if isinstance(m, nn.Linear) and m.in_features == width]  # fmt: skip
            return pick.choice(known) if known else None
        even = width % 2 == 0
        made, out = {
            "linear": lambda: (nn.Linear(width, wide, bias=bias), wide),
            "batch norm": lambda: (Along(nn.BatchNorm1d(width, affine=bias)), width),
            "layer norm": lambda: (nn.LayerNorm(width, elementwise_affine=bias), width),
            "rms norm": lambda: (nn.RMSNorm(width, eps=1e-6, elementwise_affine=bias), width),
            "group norm": lambda: (Along(nn.GroupNorm(2 if even else 1, width)), width),
            "instance norm": lambda: (Along(nn.InstanceNorm1d(width, affine=bias)), width),
            "conv": lambda: (Along(nn.Conv1d(width, wide, 3, padding=1, groups=2 if even and bias else 1)), wide),
            "depthwise": lambda: (Along(nn.Conv1d(width, width, 3, groups=width, padding=1, bias=bias)), width),
            "gain": lambda: (Parametrized(kind, (width,)), width),
            "bias": lambda: (Parametrized(kind, (width,)), width),
            "scalar bias": lambda: (Parametrized(kind, ()), width),
            "attention": lambda: (Parametrized(kind, (12, width), *([(12,)] if bias else [])), 4),
            "normed attention": lambda: (Parametrized(kind, (12, width), *([(12,)] if bias else [])), 4),
            "weight norm": lambda: (Parametrized(kind, (wide, width)), wide),
            "standardized": lambda: (Parametrized(kind, (wide, width)), wide),
            "prelu": lambda: (nn.PReLU(), width),
        }[kind]()
        self.layers.append(made)
        return len(self.layers) - 1, out

    def forward(self, x):
        values = [x]
        for kind, source, other, layer in self.steps:
            x = values[source]
            if layer >= 0:
                values.append(self.layers[layer](x))
            elif kind == "cat":
                values.append(torch.cat([x, values[other]], -1))
            elif other >= 0:
                values.append(BINARY[kind](x, values[other]))
            else:
                values.append((UNARY.get(kind) or HALVING[kind])(x))
        return self.head(values[-1].mean(1))


def program(seed, exported=False):
    """The program's case; None if it has too few points where its numbers mean anything."""
    model = Program(seed)
    inputs = (torch.randn(BATCH, LENGTH, WIDTH),)
    model.train()
    with quiet():
        graph = trace(model, inputs, {}, f"program {seed}") if exported else _recorded(model, inputs, {})
    case = Case(model, inputs, graph)
    return case if len(case.points) >= 2 else None
