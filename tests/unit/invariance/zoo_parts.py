"""Shared by the zoo's files: the registry, the verdicts' short names, inputs, and a network made of parts."""

import torch
from torch import nn

UNIT, BLOCK, WHOLE = ("invariant", "unit"), ("invariant", "block"), ("invariant", "whole")
NOT, DEAD = ("not invariant", ""), ("dead", "")
JOINT_UNIT, JOINT_BLOCK, JOINT_WHOLE = (("jointly invariant", g) for g in ("unit", "block", "whole"))
ZOO = {}


def entry(function):
    ZOO[function.__name__] = function
    return function


def image(channels=3, size=10, batch=3):
    return (torch.randn(batch, channels, size, size),)


def vector(width=7, batch=6):
    return (torch.randn(batch, width),)


def sequence(width=8, length=5, batch=2):
    return (torch.randn(batch, length, width),)


def tokens(vocabulary=12, length=6, batch=2):
    return (torch.arange(batch * length).reshape(batch, length) % vocabulary,)


class Net(nn.Module):
    """A network from named parts and a function (parts, input) → output."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def pooled(x):
    return x.mean((2, 3))
